  // --- the place in the page ----------------------------------------------------------------

  /** Where one is who follows: at the end, or where that begins what a run waits for. */
  function goal() {
    const end = document.documentElement.scrollHeight - innerHeight;
    if (!view?.rests || $('asks').hidden) return end;
    const { top } = $('asks').getBoundingClientRect();
    return Math.min(end, top + scrollY - parseFloat(getComputedStyle($('asks')).scrollMarginTop));
  }
  const atEnd = () => scrollY >= goal() - NEAR_END;
  function placeOf(id) {
    try { return JSON.parse(sessionStorage.getItem(`place:${id}`)); } catch { return null; }
  }
  function remember() {
    if (!view || !view.last || view.restore !== null) return;
    const place = { top: scrollY, follow: Boolean(view.follow) };
    sessionStorage.setItem(`place:${view.id}`, JSON.stringify(place));
  }
  function keepPlace() {
    const page = document.documentElement;
    if (view.restore !== null) {
      const most = page.scrollHeight - innerHeight;
      if (most < view.restore && !view.live) return;  // it has not all come yet
      scrollTo(0, view.restore);
      view.restore = null;
      view.follow = false;
    } else if (view.follow && scrollY < goal() - 1) {
      scrollTo(0, Math.ceil(goal()));
    }
    view.top = scrollY;
    view.height = page.scrollHeight;
  }

  history.scrollRestoration = 'manual';
  addEventListener('scroll', () => {
    if (!view || view.restore !== null) return;
    // What comes into sight, or grows, moves the page as well; who follows leaves by going up.
    const isUp = scrollY < view.top - NEAR_END && document.documentElement.scrollHeight >= view.height;
    if (view.follow ? !isUp : frame) return;
    view.follow = atEnd();
    showRun();
  }, { passive: true });
  new ResizeObserver(() => { if (view?.follow) keepPlace(); }).observe($('main'));
  const byHand = () => {
    if (!view) return;
    view.restore = null;
    view.follow = atEnd();
  };
  for (const kind of ['wheel', 'touchmove', 'keydown', 'mousedown']) {
    addEventListener(kind, () => {
      if (!view) return;
      view.restore = null;
      requestAnimationFrame(byHand);  // after it has moved
    }, { passive: true });
  }
  addEventListener('pagehide', remember);
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) {
      remember();
      if (!shared && view && view.source) view.close();  // for the tab that is looked at
      return;
    }
    if (!shared && view && !view.over && !view.source) check(view);
    refresh();
    wake();
  });

  // --- the list of runs ---------------------------------------------------------------------

  const rows = new Map(), names = new Map();
  let most = 100, polling = 0, first = true;

  async function refresh() {
    clearTimeout(polling);
    const wanted = listed();
    try {
      const answer = await ask(wanted);
      if (wanted !== listed()) return;  // another list is asked for by now
      list(answer.workflows);
      offer(answer.registered || []);
      watch(answer.workflows);
      if (!view || view.over || ready || view.source?.readyState === EventSource.OPEN) {
        linkState('connected');
      }
      if (first && !view && answer.workflows.length) {
        location.replace(`#${encodeURIComponent(answer.workflows[0].workflow_id)}`);
      }
      first = false;
    } catch (error) {
      if (error.status === 401) return;
      linkState('no connection, trying again', true);
    }
    clearTimeout(polling);
    polling = setTimeout(refresh, document.hidden ? 10 * POLL_MS : POLL_MS);
  }

  /** The list that is wanted: of some statuses, with some words. */
  function listed() {
    const query = new URLSearchParams({ limit: most });
    const words = $('find').value.trim();
    if (words) query.set('q', words);
    for (const status of $('status').value.split(' ').filter(Boolean)) query.append('status', status);
    return `workflows?${query}`;
  }
  const isFiltered = () => Boolean($('find').value.trim() || $('status').value);

  /** A connection that is half dead says nothing: the list tells that there is more. */
  async function watch(runs) {
    if (!view || view.over) return;
    const chosen = view;
    const mine = runs.find((run) => run.workflow_id === view.id)
      || await ask(address(view.id)).catch(() => null);  // it is older than those, or not like them
    if (!mine || view !== chosen || view.over) return;
    // A process that died says nothing: the list tells that its run rests.
    if (RESTS.includes(mine.status) && !view.rests && mine.last_offset === view.last) lookAgain(view);
    if (!ready && view.source?.readyState !== EventSource.OPEN) return;
    const stuck = mine.last_offset > view.last && view.last === view.seen;
    view.behind = stuck ? view.behind + 1 : 0;
    view.seen = view.last;
    if (view.behind >= 3) { view.behind = 0; connect(view); }
  }

  function list(runs) {
    const ids = new Set(runs.map((run) => run.workflow_id));
    const inner = (run) => ids.has(run.parent_workflow_id);
    const ordered = [], children = new Map();
    for (const run of runs.filter(inner)) {
      const known = children.get(run.parent_workflow_id);
      if (known) known.unshift(run); else children.set(run.parent_workflow_id, [run]);
    }
    const place = (run) => {
      ordered.push(run);
      children.get(run.workflow_id)?.forEach(place);
    };
    runs.filter((run) => !inner(run)).forEach(place);
    ordered.forEach((run, i) => {
      let row = rows.get(run.workflow_id);
      if (!row) rows.set(run.workflow_id, row = makeRow(run));
      fillRow(row, run, inner(run));
      if ($('runs').children[i] !== row) $('runs').insertBefore(row, $('runs').children[i] || null);
    });
    for (const [id, row] of rows) if (!ids.has(id)) { row.remove(); rows.delete(id); }
    show($('finding'), runs.length > 0 || isFiltered());
    put($('none'), isFiltered() ? 'No run is like that.' : 'Nothing has run yet.');
    show($('none'), !runs.length);
    show($('more'), runs.length >= most && most < 1000);
    markChosen();
  }
  function makeRow(run) {
    return make('li', {}, make('a', { href: `#${encodeURIComponent(run.workflow_id)}` },
      make('span', { className: 'dot' }), make('span', { className: 'name' }), make('time'),
      make('span', { className: 'input', dir: 'auto' }), make('span', { className: 'about' })));
  }
  function fillRow(row, run, inner) {
    const [, name, time, input, about] = row.firstChild.children;
    row.className = run.status + (inner ? ' inner' : '');
    put(name, run.name || run.workflow_id);
    names.set(run.workflow_id, run.name);
    put(input, run.input || '');
    show(input, Boolean(run.input));
    if (run.started_at) {
      time.dateTime = new Date(run.started_at * 1000).toISOString();
      put(time, ago(run.started_at));
    }
    const took = run.started_at && run.ended_at ? span(run.ended_at - run.started_at) : '';
    const tokens = is(run.usage?.total_tokens) ? `${number(run.usage.total_tokens)} tokens` : '';
    const cost = is(run.usage?.cost) ? `cost ${money(run.usage.cost)}` : '';
    const asked = [...new Set((run.pending || []).map((each) => each.name))];
    const waits = asked.length ? `waits for ${asked.join(', ')}` : '';
    put(about, [run.status, waits, took, tokens, cost].filter(Boolean).join(' · '));
  }
  function markChosen() {
    for (const [id, row] of rows) {
      if (view && view.id === id) row.firstChild.setAttribute('aria-current', 'page');
      else row.firstChild.removeAttribute('aria-current');
    }
  }
  function offer(names) {
    show($('starting'), names.length > 0);
    const options = [...$('workflow').options].map((option) => option.value);
    if (options.join('\n') === names.join('\n')) return;
    const kept = $('workflow').value || sessionStorage.getItem('workflow');
    $('workflow').replaceChildren(...names.map((name) => make('option', { value: name }, name)));
    if (names.includes(kept)) $('workflow').value = kept;
  }
  $('workflow').addEventListener('change', () => {
    sessionStorage.setItem('workflow', $('workflow').value);  // a reload keeps it
  });
  $('input').addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
    event.preventDefault();
    $('start').requestSubmit();
  });

  let typing = 0;
  $('find').addEventListener('input', () => {
    clearTimeout(typing);
    typing = setTimeout(find, 150);
  });
  $('status').addEventListener('change', find);
  $('finding').addEventListener('submit', (event) => { event.preventDefault(); find(); });
  async function find() {
    await refresh();
    const count = rows.size;
    say(`${number(count)} run${count === 1 ? '' : 's'}`);
  }

  // --- what the reader does -----------------------------------------------------------------

  function showLogin() {
    clearTimeout(polling);
    if (view) view.close();
    show($('run'), false); show($('note'), false); show($('starting'), false);
    if ($('login').hidden) {
      show($('login'), true);
      linkState('a token is needed');
      $('token').focus();
    }
  }

  $('login').addEventListener('submit', async (event) => {
    event.preventDefault();
    put($('login-problem'), '');
    try {
      await ask('login', { token: $('token').value });
    } catch (error) {
      put($('login-problem'),
        error.status === 401 ? 'That is not the token.' : `It did not work: ${error.message}`);
      return $('token').select();
    }
    $('token').value = '';
    show($('login'), false);
    show($('note'), !view);
    $('main').focus();
    refresh();
    if (view) check(view);
  });

  $('start').addEventListener('submit', async (event) => {
    event.preventDefault();
    put($('start-problem'), '');
    try {
      const body = { workflow: $('workflow').value, input: $('input').value };
      const answer = await ask('workflows', body);
      location.hash = encodeURIComponent(answer.workflow_id);
      refresh();
    } catch (error) {
      put($('start-problem'), `It was not started: ${error.message}`);
    }
  });

  $('stop').addEventListener('click', async () => {
    const mine = view;
    $('stop').disabled = true;
    put($('stop'), 'Stopping …');
    try {
      await ask(`${address(mine.id)}/stop`, {});
      if (view === mine && !mine.over) say('Stopping');
    } catch (error) {
      if (view === mine && !mine.over) problem(`It was not stopped: ${error.message}`);
    }
    // Its end comes as an event; if it does not, it can be asked for again.
    setTimeout(() => { if (view === mine) letStop(); }, 1500);
  });

  function letStop() {
    $('stop').disabled = false;
    put($('stop'), 'Stop');
  }

  $('latest').addEventListener('click', () => {
    view.follow = true;
    keepPlace();
    showRun();
  });
  $('more').addEventListener('click', () => { most = 1000; refresh(); });
  $('skip').addEventListener('click', (event) => { event.preventDefault(); $('main').focus(); });
  addEventListener('hashchange', choose);
  setInterval(() => { if (view && !view.over && !document.hidden) showRun(); }, 1000);
