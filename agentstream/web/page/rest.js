  // --- a run that rests: what it waits for, and the answers ---------------------------------

  /** The objects of a list: programs append events of their own. */
  const objects = (list) => (Array.isArray(list) ? list.filter((each) => each && typeof each === 'object') : []);

  /** What the server says of a run; kept if it rests, until the events have come so far. */
  function learnRest(mine, state) {
    mine.rest = RESTS.includes(state.status) ? state : null;
    settle(mine);
  }
  function settle(mine) {
    if (mine.rest && mine.last === mine.rest.last_offset) rest(mine.rest);
  }
  async function lookAgain(mine) {
    const state = await ask(address(mine.id)).catch(() => null);
    if (view !== mine || !state) return;
    learnRest(mine, state);
    wake();
  }

  /** No process works on it: what is under way waits, and what is asked is shown. */
  function rest({ status, reason, pending: asked, since, can_resume: able }) {
    const isNew = view.status !== status;
    view.status = status;
    view.rested = since ?? view.rested;
    view.why = reason ?? view.why;
    asked = objects(asked);
    const names = new Set(asked.map((each) => each.name));
    for (const card of view.cards.values()) if (!card.over) restCard(card, status, names);
    for (const { button } of view.chips.values()) {
      if (button.className === 'running') chipState(button, status);
    }
    showAsks(asked, able);
    if (isNew && view.live) {
      say(names.size ? `Suspended: it waits for ${[...names].join(', ')}` : `The run is ${status}`);
      refresh();
    }
    wake();
  }
  function restCard(card, status, names) {
    card.live = false;
    card.status = card.doing = status;
    card.changed = true;
    for (const tool of card.tools.filter((one) => !one.done)) {
      tool.node.className = `tool ${status}`;
      put(tool.about, names.has(tool.name) ? 'waits for an answer' : status);
    }
  }

  /** A process goes on with it: steps that are done stay so, others begin again. */
  function goOn(data) {
    view.status = 'running';
    view.rest = view.rested = view.tokens = null;
    view.why = '';
    view.done = new Set((Array.isArray(data.completed) ? data.completed : []).map(String));
    const isDone = (step) => [...view.done].some((label) => within(step, label));
    for (const [step, { button }] of view.chips) {
      if (isDone(step)) chipState(button, 'completed');
      else if (!['completed', 'failed'].includes(button.className)) chipState(button, 'pending');
    }
    for (const [key, card] of [...view.cards]) {
      if (card.over) continue;
      if (isDone(card.step)) { leave(card, 'completed'); continue; }
      if (!key.endsWith('\nfunction') && !key.endsWith('\nrun')) {
        card.again = true;
        enter(card, 'going on');
        for (const tool of card.tools.filter((one) => !one.done)) {
          tool.node.className = 'tool running';
          put(tool.about, 'running');
        }
        continue;
      }
      card.node.remove();
      view.cards.delete(key);
    }
    const told = objects(data.answers).map(answerText);
    const text = told.length ? told.join('; ') : `It was ${data.reason || 'interrupted'}`;
    $('cards').append(make('p', { className: 'remark' }, `${text}. The run goes on.`));
    hideAsks();
    announce('The run goes on');
    if (view.live) refresh();
  }
  function answerText({ kind, name, answer, reason, by }) {
    const unknown = kind === 'unknown';
    const what = {
      yes: unknown ? 'made again' : 'allowed',
      no: unknown ? 'treated as not done' : 'refused',
      change: 'allowed with other arguments',
      value: 'a value was sent',
      expired: 'nobody answered in time',
    }[answer] || String(answer);
    return `${name}: ${what}${by ? ` by ${by}` : ''}${reason ? ` (${reason})` : ''}`;
  }

  /** An agent's request that an earlier process had begun is made again: what it brought is void. */
  function beginRound(card, round) {
    if (card.again && card.rounds.has(round)) {
      const before = card.rounds.get(round);
      while (card.body.lastChild && card.body.lastChild !== before) card.body.lastChild.remove();
      card.tools = card.tools.filter((tool) => card.body.contains(tool.node));
      card.texts = card.texts.filter((made) => card.body.contains(made.node));
      remark(card, 'The run was interrupted in this answer: it is asked for again.');
    }
    card.again = false;
    card.rounds.set(round, card.body.lastChild);
  }

  // --- what it waits for --------------------------------------------------------------------

  const PAUSE_MS = 500, SOON_MS = 3000;
  let asksMade = 0, sentAt = -SOON_MS;

  function showAsks(asked, able) {
    const keys = asked.map((each) => `${each.kind}\n${each.id}`);
    for (const [key, item] of view.asks) {
      if (!keys.includes(key)) { item.node.remove(); view.asks.delete(key); }
    }
    asked.forEach((each, i) => {
      const item = view.asks.get(keys[i]) || makeAsk(each);
      view.asks.set(keys[i], item);
      const there = $('asked').children[i];
      if (there !== item.node) $('asked').insertBefore(item.node, there || null);
      if (each.answered) closeAsk(item, 'Answered.');
      else if (isLate(item)) closeAsk(item, 'Too late to answer.');
    });
    const items = [...view.asks.values()], isReady = !items.length || items.some((item) => item.closed);
    put($('asks-title'), items.length ? 'It waits for an answer' : `The run is ${view.status}`);
    put($('asks-about'), items.length ? 'No process works on it meanwhile.'
      : `It can go on where it was.${view.why ? ` Why it rests: ${view.why}` : ''}`);
    put($('asks-next'), isReady && able === false
      ? 'This server has not its workflow: a process that watches goes on with it, or agentstream resume.'
      : '');
    show($('asked'), items.length > 0);
    show($('asks-by'), items.some((item) => !item.closed));
    show($('resume'), isReady && able === true);
    show($('asks'), true);
  }
  const isLate = (item) => is(item.due) && item.due <= now();
  setInterval(() => {
    if (!view?.rest || ![...view.asks.values()].some((item) => !item.closed && isLate(item))) return;
    showAsks(objects(view.rest.pending), view.rest.can_resume);
  }, 1000);
  function hideAsks() {
    if ($('asks').contains(document.activeElement)) $('main').focus({ preventScroll: true });
    view?.asks.clear();
    $('asked').replaceChildren();
    put($('asks-problem'), '');
    $('resume').disabled = false;
    show($('asks'), false);
  }

  function makeAsk(each) {
    const id = `ask-${++asksMade}`, name = make('b', {}, String(each.name));
    const isSignal = each.kind === 'signal', isUnknown = each.kind === 'unknown';
    const title = isSignal ? ['A value for ', name] : isUnknown ? ['Was ', name, ' done?']
      : [`May ${each.agent || 'the agent'} call `, name, '?'];
    const step = view.chips.get(each.step)?.button.children[1].textContent;
    const until = is(each.expires_at) && new Date(each.expires_at * 1000).toLocaleString();
    const facts = [each.agent && `agent ${each.agent}`, each.step !== '' && `step ${step || each.step}`,
      until && (isSignal ? `until ${until}` : `counts as refused after ${until}`)];
    const field = make(isSignal ? 'textarea' : 'input', { id: `${id}-field`, rows: 2 });
    const problem = make('p', { className: 'problem', role: 'alert' });
    const buttons = make('div', { className: 'buttons' });
    const node = make('li', { className: 'ask' }, make('div', { role: 'group', 'aria-labelledby': id },
      make('h4', { id }, ...title), make('p', { className: 'about' }, facts.filter(Boolean).join(' · '))));
    const group = node.firstChild;
    const item = { id, node, buttons, problem, field, due: each.expires_at, closed: false, paused: false };
    if (isUnknown) {
      group.append(make('p', { className: 'remark' },
        'It was begun when its process died; nobody knows whether it was done.'));
    }
    if (!isSignal) {
      const text = pretty(each.arguments || '{}');
      group.append(make('pre', { dir: 'auto', tabIndex: 0, role: 'group', 'aria-label': 'Arguments' }, text));
    }
    const label = isSignal ? 'Value, as JSON; what is none is sent as a text, nothing as null'
      : `Reason, for the model, if you ${isUnknown ? 'treat it as not done' : 'refuse'}`;
    group.append(make('label', { htmlFor: field.id }, label), field, problem, buttons);
    if (performance.now() - sentAt < SOON_MS) {  // a double click on the last one must not answer this
      item.paused = true;
      setTimeout(() => {
        for (const button of buttons.children) button.disabled = false;
      }, PAUSE_MS);
    }
    const call = `approvals/${encodeURIComponent(each.id)}`;
    if (isSignal) {
      const path = `signals/${encodeURIComponent(each.name)}`;
      addButton(item, 'Send', 'main', path, () => valueBody(field.value));
    } else {
      addButton(item, isUnknown ? 'Make it again' : 'Allow', 'main', call, () => ({ answer: 'yes' }));
      addButton(item, isUnknown ? 'Treat as not done' : 'Refuse', 'stop', call,
        () => ({ answer: 'no', reason: field.value.trim() }));
    }
    return item;
  }
  function addButton(item, text, className, path, body) {
    const button = make('button', { type: 'button', className, 'aria-describedby': item.id }, text);
    button.disabled = item.paused;
    button.addEventListener('click', () => send(item, path, body()));
    item.buttons.append(button);
  }
  /** As it was typed: a number keeps all its digits. */
  function valueBody(text) {
    let value = text.trim() || 'null';
    try { JSON.parse(value); } catch { value = JSON.stringify(text); }
    const by = $('by').value.trim();
    return `{"value": ${value}, "by": ${JSON.stringify(by)}}`;
  }
  function closeAsk(item, text) {
    if (item.closed) return;
    item.closed = true;
    if (item.node.contains(document.activeElement)) $('asks-title').focus({ preventScroll: true });
    for (const part of [item.field, item.field.labels?.[0], item.buttons]) part?.remove();
    item.node.firstChild.append(make('p', { className: 'about' }, text));
  }

  async function send(item, path, body) {
    const mine = view, by = $('by').value.trim(), buttons = [...item.buttons.children];
    if (typeof body !== 'string' && by) body.by = by;
    const pressed = document.activeElement;
    sentAt = performance.now();
    put(item.problem, '');
    $('asks-title').focus({ preventScroll: true });  // what is disabled keeps no focus
    for (const button of buttons) button.disabled = true;
    try {
      await ask(`${address(mine.id)}/${path}`, body);
      if (view !== mine || !item.node.isConnected) return;  // it has gone on already
      closeAsk(item, 'Answered.');
      say('Answered');
    } catch (error) {
      if (view !== mine) return;
      for (const button of buttons) button.disabled = false;
      pressed.focus({ preventScroll: true });
      put(item.problem, `It was not answered: ${error.message}`);
    }
    lookAgain(mine);
  }

  $('by').value = localStorage.getItem('by') || '';
  $('by').addEventListener('change', () => localStorage.setItem('by', $('by').value.trim()));
  $('resume').addEventListener('click', async () => {
    const mine = view;
    put($('asks-problem'), '');
    $('asks-title').focus({ preventScroll: true });
    $('resume').disabled = true;
    try {
      await ask(`${address(mine.id)}/resume`, {});
    } catch (error) {
      if (view === mine) put($('asks-problem'), `It does not go on: ${error.message}`);
    }
    // Its next event hides the button; if none comes, it can be asked for again.
    setTimeout(() => { if (view === mine) $('resume').disabled = false; }, 1500);
  });

