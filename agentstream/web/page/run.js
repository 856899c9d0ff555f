  // --- the chosen run -----------------------------------------------------------------------

  let view = null;     // the run that is shown
  const thoughts = new Set();  // reasoning that has grown since
  let frame = false, woken = 0;  // one is asked for; since when

  /** What is shown of one run, and where we are in its events. */
  class View {
    constructor(id) {
      this.id = id;
      this.last = 0;         // offset of the last event that is shown
      this.known = 0;        // ... and of the last one there was when we came
      this.name = '';
      this.status = 'running';
      this.started = null;
      this.ended = null;
      this.tokens = null;    // its usage, as its last event has it
      this.used = { total_tokens: 0, cost: null };  // ... and so far, by its answers
      this.input = '';
      this.shown = null;     // of it
      this.cards = new Map();
      this.chips = new Map();
      this.kinds = new Map();     // of steps, by their place: "1", "1.facts"
      this.attempts = new Map();  // of steps that were tried again
      this.done = new Set();      // labels of steps that a run which goes on does not run again
      this.rest = null;      // what the server says of a run that rests
      this.rested = null;    // since when, and why
      this.why = '';
      this.asks = new Map();  // what it waits for, as it is shown, by kind and id
      this.source = null;
      this.failed = 0;       // connections, in a row
      this.timer = 0;
      this.behind = 0;
      const place = placeOf(id);
      this.restore = place && !place.follow ? place.top : null;
      this.follow = place ? place.follow : null;
      this.top = this.height = 0;  // where the page was when it was painted
    }
    get live() { return this.last >= this.known; }
    get over() { return !ACTIVE.includes(this.status); }
    get rests() { return RESTS.includes(this.status); }
    close() {
      clearTimeout(this.timer);
      if (this.source) this.source.close();
      this.source = null;
    }
  }

  const address = (id) => `workflows/${encodeURIComponent(id)}`;

  function choose() {
    let id = location.hash.slice(1);
    try { id = decodeURIComponent(id); } catch { /* typed by hand: as it is */ }
    if (view && view.id === id) return;
    if (view) { remember(); view.close(); }
    view = id ? new View(id) : null;
    ready = false;
    want();
    markChosen();
    show($('login'), false);
    clear();
    if (view) check(view);
  }

  function clear() {
    pending.clear();
    growing.clear();
    hideAsks();
    for (const id of ['cards', 'steps', 'run-facts', 'run-problem']) $(id).replaceChildren();
    show($('run'), false);
    letStop();
    show($('note'), true);
    put($('note'), view ? 'Loading …' : 'Choose a run.');
    showRun();
  }

  /** Ask for the run's state, then go on reading, or end. */
  async function check(mine) {
    clearTimeout(mine.timer);
    let state;
    try {
      state = await ask(address(mine.id));
    } catch (error) {
      if (view !== mine) return;
      if (error.status === 401) return;  // the form is there; after it we come here again
      if (error.status === 404 && !mine.last) {
        show($('run'), false); show($('note'), true);
        put($('note'), 'This server knows no such run.');
        mine.status = 'closed';
        showRun();
        return linkState('connected');
      }
      if (error.status === 404) {
        problem('The server has this run no more; what it said until then is here.');
        mine.status = 'closed';
        showRun();
        return linkState('connected');
      }
      linkState('no connection, trying again', true);
      return later(mine);
    }
    if (view !== mine) return;
    if (state.last_offset < mine.last) {  // the log has lost its end: what we show is not in it
      mine.close();
      view = new View(mine.id);
      clear();
      return check(view);
    }
    mine.known = state.last_offset;
    mine.name = mine.name || state.name;
    mine.started = mine.started || state.started_at;
    mine.parent = state.parent_workflow_id;
    if (typeof state.input === 'string') mine.input = state.input;
    if (mine.follow === null) mine.follow = state.ended_at === null;
    if (state.status === 'queued') mine.status = 'queued';
    show($('note'), false); show($('run'), true); show($('login'), false);
    const ended = !ACTIVE.includes(state.status);
    learnRest(mine, state);
    want();
    if (ended && mine.last && state.last_offset <= mine.last) {
      finish(state.status, state.ended_at);
    } else if (ready && mine.live) {
      linkState('connected');  // what is new comes over the leader's connection
    } else {
      connect(mine);
    }
    showRun();
  }

  /** A run's input is in the log from its first event on. */
  async function learnInput(mine) {
    const state = await ask(address(mine.id)).catch(() => null);
    if (view !== mine || typeof state?.input !== 'string') return;
    mine.input = state.input;
    wake();
  }

  function later(mine) {
    const most = Math.min(500 * 2 ** mine.failed++, MOST_BACKOFF_MS);
    clearTimeout(mine.timer);
    mine.timer = setTimeout(() => { if (view === mine) check(mine); }, most * (.5 + Math.random() / 2));
  }

  function connect(mine) {
    mine.close();
    const after = mine.last ? `?after=${mine.last}` : '';
    const source = mine.source = new EventSource(`${base}${address(mine.id)}/stream${after}`);
    source.onopen = () => { linkState('connected'); };
    source.onerror = () => {
      if (view !== mine || mine.source !== source) return;
      if (source.readyState === EventSource.CONNECTING) {  // it comes back by itself
        return linkState('connection lost, reconnecting', true);
      }
      source.close();  // an HTTP error, or 204: it will not
      mine.source = null;
      if (mine.failed) {
        linkState('the stream is refused, trying again', true);
        later(mine);
      } else {
        mine.failed = 1;
        check(mine);
      }
    };
    for (const type of TYPES) {
      source.addEventListener(type, (message) => {
        if (view !== mine || mine.source !== source) return;
        mine.failed = 0;
        receive(mine, JSON.parse(message.data));
        if (mine.heard) letGo(mine); else if (ready && mine.last === mine.known) relieve(mine);
      });
    }
  }

  function linkState(text, lost = false) {
    const was = $('link').classList.contains('lost');
    put($('link'), text);
    $('link').classList.toggle('lost', lost);
    if (lost !== was) say(lost ? 'Connection lost, trying again' : 'Connected again');
  }

