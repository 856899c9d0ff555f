  // --- steps and agents ---------------------------------------------------------------------

  /** The step that holds a step; null for one of the run's own.  Names may have dots in them. */
  function holder(step) {
    for (let i = step.lastIndexOf('.'); i > 0; i = step.lastIndexOf('.', i - 1)) {
      if (view.kinds.has(step.slice(0, i))) return step.slice(0, i);
    }
    return null;
  }
  /** What it is part of, the innermost first: [kind of the holder, the part's name, its place]. */
  function parts(step) {
    const found = [];
    for (let up = holder(step); up !== null; step = up, up = holder(up)) {
      found.push([view.kinds.get(up), step.slice(up.length + 1), step]);
    }
    return found;
  }
  const within = (step, outer) => step === outer || step.startsWith(`${outer}.`);

  /** A chip for each of the run's steps, with those of its branches; what is deeper has cards. */
  function chip(step, name, state) {
    const up = holder(step);
    if (up === null) return chipState(chipOf(step, name, $('steps')).button, state);
    const known = view.chips.get(up), part = step.slice(up.length + 1);
    if (!known || holder(up) !== null) return;
    if (view.kinds.get(up) === 'Parallel') {
      known.inner ??= known.item.appendChild(make('ul', { 'aria-label': 'Branches' }));
      return chipState(chipOf(step, part, known.inner).button, state);
    }
    if (view.kinds.get(up) === 'Map') {
      if (state !== 'running') known.done?.add(step);
      showItems(known);
    }
    if (view.kinds.get(up) === 'Repeat') put(known.about, ` round ${part}`);
    if (view.kinds.get(up) === 'Branch') put(known.about, ` ${part}`);
  }
  /** A step for each of so many items begins, or begins again: its chip counts those done. */
  function countItems(step, items) {
    const known = view.chips.get(step);
    const isItem = (label) => label.startsWith(`${step}.`) && !label.slice(step.length + 1).includes('.');
    const done = new Set([...view.done].filter(isItem));  // by an earlier process
    if (known) showItems(Object.assign(known, { items, done }));
  }
  function showItems(known) {
    if (known.done) put(known.about, ` ${known.done.size} of ${known.items} items`);
  }
  function chipOf(step, name, list) {
    let known = view.chips.get(step);
    if (!known) {
      const about = make('span', { className: 'about' });
      const button = make('button', { type: 'button' }, make('span', { className: 'dot' }),
        make('span', {}, name), about, make('span', { className: 'unseen' }));
      button.addEventListener('click', () => goTo(step));
      view.chips.set(step, known = { button, about, item: make('li', {}, button), inner: null });
      list.append(known.item);
    }
    return known;
  }
  function chipState(button, state) {
    button.className = state;
    put(button.lastChild, `, ${state}`);
  }
  function goTo(step) {
    const nodes = [...view.cards.values()].filter((card) => within(card.step, step))
      .map((card) => card.node);
    const first = [...$('cards').children].find((node) => nodes.includes(node));
    if (!first) return;
    first.scrollIntoView({ block: 'start' });
    first.querySelector('h3').focus({ preventScroll: true });
  }

  /** The card of an agent in its step: steps that run side by side do not mix. */
  function cardOf(data, event) {
    const step = String(data.step ?? '');
    const key = `${step}\n${data.agent}`;
    const card = view.cards.get(key);
    if (card && !(card.over && event.type === 'agent_processing')) return card;
    return newCard(key, step, String(data.agent), String(data.agent));
  }
  function newCard(key, step, agent, title) {
    const former = view.cards.get(key);
    if (former) view.cards.set(`${key}\n${view.last}`, former);  // the step comes round again
    const id = `card-${view.cards.size}-${view.last}`;
    const node = make('section', { className: 'card running', 'aria-labelledby': id },
      make('header', {}, make('h3', { id, tabIndex: -1 }, title, ...whereabouts(step, agent)),
        make('span', { className: 'state' }), make('dl', { className: 'facts' }),
        make('span', { className: 'tools', hidden: true })),
      make('div', { className: 'body' }));
    const card = {
      node, step, agent, body: node.lastChild, status: 'running', doing: '',
      over: false, live: false, part: null, tools: [], asked: null, first: null, begun: null,
      latest: null, count: 0, wait: null, rate: null, about: '', tokens: 0,
      rounds: new Map(), again: false, texts: [], isRaw: false, model: '', tries: 0, cost: null,
    };
    cardTools(card);
    const before = lastOf(step);
    if (before) before.after(node); else $('cards').append(node);
    view.cards.set(key, card);
    return card;
  }
  /** Branches, rounds and attempts that tell a card from others of the same agent. */
  function whereabouts(step, agent) {
    const names = [], found = parts(step);
    for (const [kind, part] of found) {
      if (kind === 'Parallel' && part !== agent) names.unshift(part);
      if (kind === 'Map') names.unshift(`item ${part}`);
      if (kind === 'Repeat') names.unshift(`round ${part}`);
    }
    const attempts = [step, ...found.map((one) => holder(one[2]))].map((s) => view.attempts.get(s));
    const attempt = attempts.find(Boolean);
    if (attempt) names.push(`attempt ${attempt}`);
    return names.flatMap((name) => [' ', make('span', { className: 'where' }, name)]);
  }
  /** The last card of the same branch: what belongs together stays so. */
  function lastOf(step) {
    const cards = [...view.cards.values()];
    const places = parts(step).filter(([kind]) => kind === 'Parallel' || kind === 'Map').map((one) => one[2]);
    for (const place of [step, ...places]) {
      const nodes = new Set(cards.filter((c) => within(c.step, place)).map((c) => c.node));
      const last = [...$('cards').children].reverse().find((node) => nodes.has(node));
      if (last) return last;
    }
    return null;
  }

  /** A workflow within this one is a run of its own: the way there. */
  function runCard(data) {
    const link = make('a', { href: `#${encodeURIComponent(data.run)}` }, data.name);
    const card = newCard(`${data.step}\nrun`, data.step, data.name, link);
    enter(card, 'a run of its own');
  }
  function endRun(data, status) {
    const card = view.cards.get(`${data.step}\nrun`);
    if (!card || card.over) return;
    leave(card, status);
    card.doing = `${status}, a run of its own`;
  }

  /** A function's step: its name, and what it returned. */
  function functionCard(data) {
    enter(newCard(`${data.step}\nfunction`, data.step, data.name, data.name), 'running');
  }
  function endFunction(data) {
    const card = view.cards.get(`${data.step}\nfunction`) || newCard(
      `${data.step}\nfunction`, data.step, data.name, data.name);
    const seconds = data.duration_s ?? data.duration_ms / 1000;
    leave(card, 'completed');
    if (is(seconds)) card.doing = `done in ${span(seconds)}`;
    if (data.output === null || data.output === undefined) return remark(card, 'It returned nothing.');
    const words = typeof data.output === 'string';
    const text = words ? data.output : JSON.stringify(data.output, null, 2);
    const node = make(words ? 'div' : 'pre', { className: words ? 'text' : '', dir: 'auto' });
    new Plain(node).add(text);
    card.body.append(node);
    card.texts.push({ node, source: [text] });
    show(card.node.querySelector('.tools'), true);
  }
  function failFunction(data, status) {
    const card = view.cards.get(`${data.step}\nfunction`);
    if (!card) return;
    if (status !== 'cancelled') remark(card, `${data.error}: ${data.message}`, true);
    leave(card, status);
  }

  /** A step is tried again: what it has said counts for nothing. */
  function retract(data) {
    for (const card of view.cards.values()) {
      if (card.status === 'void' || !within(card.step, data.step)) continue;
      if (!card.over) leave(card, 'failed');
      card.status = 'void';
      card.doing = `attempt ${data.attempt || 1} failed, tried again`;
      card.changed = true;
    }
    for (const label of [...view.done]) if (within(label, data.step)) view.done.delete(label);
    announce(`${data.name} is tried again`);
  }

  function enter(card, doing) {
    if (RESTS.includes(card.status)) card.status = 'running';
    card.doing = doing;
    card.changed = true;
  }
  function leave(card, status) {
    card.over = true;
    card.live = false;
    card.status = card.doing = status;
    card.changed = true;
    const text = status === 'completed' ? 'done' : 'not finished';  // its process died right after it
    for (const tool of card.tools) if (!tool.done) closeTool(tool, status, text);
  }

  function count(card, event) {
    card.count += 1;
    card.latest = event.timestamp;
    if (card.begun === null) {
      card.begun = event.timestamp;
      if (card.first === null && card.asked !== null) card.first = event.timestamp - card.asked;
    }
  }

  /** The card's newest part if it is of that kind, else a new one. */
  function part(card, kind, build) {
    if (!card.part || card.part.kind !== kind) {
      card.part = { kind, ...build(card) };
      card.body.append(card.part.node);
    }
    return card.part;
  }
  function remark(card, text, bad = false) {
    card.body.append(make('p', { className: bad ? 'remark bad' : 'remark' }, String(text)));
    card.part = null;
  }

  function startTool(card, data) {
    // One that an earlier process had not begun is said to start again.
    if (card.again && card.tools.some((one) => !one.done && one.id === data.id)) return;
    const about = make('span', { className: 'about' }, 'running');
    const node = make('details', { className: 'tool running' },
      make('summary', {}, make('b', {}, data.name), ' ',
        make('code', {}, short(data.arguments)), ' ', about),
      make('h4', {}, 'Arguments'), make('pre', { dir: 'auto' }, pretty(data.arguments)));
    const { id, name, arguments: given } = data;
    card.tools.push({ id, name, given, node, about, done: false });
    card.body.append(node);
    card.part = null;
  }
  function endTool(card, data, status) {
    const tool = card.tools.find((one) => !one.done && one.id === data.id && one.name === data.name);
    if (!tool) return;
    const good = status === 'completed';
    const took = is(data.duration_ms) ? ` in ${span(data.duration_ms / 1000)}` : '';
    const text = good ? data.result : `${data.error}: ${data.message}`;
    closeTool(tool, status, data.repeated ? 'told the earlier result' : (good ? 'done' : 'failed') + took);
    if (data.arguments !== tool.given) {  // whoever allowed it has changed them
      tool.node.append(make('h4', {}, 'Called with'), make('pre', { dir: 'auto' }, pretty(data.arguments)));
    }
    tool.node.append(make('h4', {}, good ? 'Result' : 'Error'),
      make('pre', { dir: 'auto' }, good ? pretty(text) : text));
    announce(`${data.name} ${good ? 'is done' : 'failed'}`);
  }
  function closeTool(tool, status, text) {
    tool.done = true;
    tool.node.className = `tool ${status}`;
    put(tool.about, text);
  }
  const short = (text) => (text.length > 90 ? `${text.slice(0, 90)} …` : text);
  const TOKENS = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;
  /** JSON on lines of its own, each value as it was written: a number keeps all its digits. */
  function pretty(text) {
    try { JSON.parse(text); } catch { return String(text); }
    let out = '', depth = 0, fresh = false;
    const line = () => `\n${'  '.repeat(depth)}`;
    for (const token of String(text).match(TOKENS) || []) {
      const closes = token === '}' || token === ']';
      if (closes) depth -= 1;
      if (closes ? !fresh : fresh) out += line();
      fresh = token === '{' || token === '[';
      if (fresh) depth += 1;
      if (token === ',') out += `,${line()}`;
      else if (token === ':') out += ': ';
      else out += token[0] === '"' ? JSON.stringify(JSON.parse(token)) : token;
    }
    return escaped(out);
  }

  // --- painting, once a frame ---------------------------------------------------------------

  function wake() {
    if (frame) return;
    frame = true;
    woken = performance.now();
    // A hidden page gets no frames.
    if (document.hidden) setTimeout(paint, 250); else requestAnimationFrame(paint);
  }
  function paint() {
    frame = false;
    paintTexts();
    for (const thought of thoughts) put(thought.about, `${number(thought.length)} characters`);
    thoughts.clear();
    if (!view) return;
    for (const card of view.cards.values()) if (card.changed) showCard(card);
    showRun();
    keepPlace();
  }

  function showCard(card) {
    card.changed = false;
    card.node.className = `card ${card.status}`;
    put(card.node.querySelector('.state'), card.doing);
    const guess = guessed(card);
    const rate = guess ?? card.rate;
    const wait = card.wait ?? card.first;
    const tokens = card.tokens + (card.live ? card.count : 0);
    facts(card.node.querySelector('.facts'), [
      ['model', card.model],
      ['first token', is(wait) && span(wait)],
      ['tokens/s', is(rate) && (guess ? '≈ ' : card.about) + number(rate, rate < 100 ? 1 : 0)],
      ['retries', card.tries > 0 && number(card.tries)],
      ['tokens', tokens > 0 && number(tokens)],
      ['cost', card.cost !== null && money(card.cost)],
    ]);
  }
  /** The pace of an answer under way, by its chunks; the server's own figure comes at its end. */
  function guessed(card) {
    const took = card.latest - card.begun;
    return card.live && card.count > 1 && took > 0 ? (card.count - 1) / took : null;
  }

  function showRun() {
    if (!view) { document.title = 'agentstream'; return show($('latest'), false); }
    const name = view.name || view.id;
    document.title = `${view.over ? '' : view.rests ? '‖ ' : '● '}${name} – agentstream`;
    put($('run-name'), name);
    badge($('run-state'), view.status);
    showInput(view.input);
    show($('stop'), !view.over);
    show($('latest'), !view.over && !view.follow && view.restore === null && !$('run').hidden);
    const end = view.ended ?? (view.over ? null : now()), usage = view.tokens || view.used;
    facts($('run-facts'), [
      ['run', view.id !== name && view.id],
      ['within', view.parent && { run: view.parent, text: names.get(view.parent) || view.parent }],
      ['started', view.started && new Date(view.started * 1000).toLocaleString()],
      [view.over ? 'took' : 'for',
        view.started && end && !view.rests && span(Math.max(0, end - view.started))],
      ['rests for', view.rests && view.rested && span(Math.max(0, now() - view.rested))],
      ['tokens', usage.total_tokens > 0 && (usage.estimated ? '≈ ' : '') + number(usage.total_tokens)],
      ['cost', is(usage.cost) && money(usage.cost)],
    ]);
  }
  /** What the run was given: whole, and folded if it is long. */
  function showInput(text) {
    if (view.shown === text) return;
    view.shown = text;
    const long = text.length > LONG_INPUT || text.split('\n', 6).length > 5;
    show($('run-input'), Boolean(text));
    $('run-input-text').replaceChildren();
    new Plain($('run-input-text')).add(text);
    put($('run-input-about'), long ? `${number(text.length)} characters` : '');
    $('run-input').open = !long;
  }
  function badge(node, status) {
    if (node.dataset.status === status) return;
    node.dataset.status = status;
    node.className = `badge ${status}`;
    node.replaceChildren(make('span', { className: 'dot' }), status);
  }

