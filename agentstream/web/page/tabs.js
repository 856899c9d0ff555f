  // --- one connection for all tabs ------------------------------------------------------------

  // A browser opens six connections to a server, all tabs together: were each tab to hold one,
  // the seventh would never load.  So a tab reads the past of its run over a connection of its
  // own, which ends; the live events of all tabs' runs come over one, which one tab, the
  // leader, holds, and hands on.  Without locks (a page that is neither TLS nor loopback)
  // there is no leader: each tab keeps its own connection, and lets go of it while hidden.
  const channel = 'BroadcastChannel' in self ? new BroadcastChannel(`agentstream ${base}`) : null;
  const shared = Boolean(channel && navigator.locks);
  const me = crypto.getRandomValues(new Uint32Array(2)).join('-');
  const HERE_MS = 5000, GONE_MS = 90000;  // a hidden tab's clock may tick once a minute

  let ready = false;  // a leader's connection carries the events of our run
  const wanted = new Map();  // of the leader: by tab, the run it shows and when it last said so
  let lead = null, leadRuns = '', leading = false, position = null;

  /** Tell everybody, this tab too. */
  function tell(message) {
    channel.postMessage(message);
    hear(message);
  }

  /** Say which live run this tab shows; "" for none. */
  function want() {
    if (!shared) return;
    tell({ kind: 'want', tab: me, run: view && !view.over ? view.id : '' });
  }

  function hear(message) {
    if (message.kind === 'want' && leading) {
      if (message.run) wanted.set(message.tab, { run: message.run, at: Date.now() });
      else wanted.delete(message.tab);
      gather();
    } else if (message.kind === 'runs') {
      const was = ready;
      ready = Boolean(view) && message.runs.includes(view.id);
      if (ready) relieve(view);
      else if (was) alone();
    } else if (message.kind === 'event') {
      if (view && message.event.workflow_id === view.id) liveEvent(view, message.event);
    } else if (message.kind === 'lost' && ready) {
      ready = false;
      alone();
    } else if (message.kind === 'leader') {
      want();
    }
  }

  /** The leader's connection serves us no more: back to one of our own. */
  function alone() {
    if (view && !view.over && !view.source) check(view);
  }

  /** An event from the leader: the next one is shown, an earlier one is known, a gap is read. */
  function liveEvent(mine, event) {
    mine.heard = event.offset;
    if (mine.source) return letGo(mine);  // still reading the past, which will come to this
    if (mine.over) return;
    if (event.offset > mine.last + 1) return connect(mine);
    receive(mine, event);
  }

  /** Our own connection has had all that the leader's has: what comes next, the leader hands on. */
  function letGo(mine) {
    if (!ready || !mine.source || mine.over || !mine.heard || mine.last < mine.heard) return;
    mine.source.close();
    mine.source = null;
  }

  /** The leader's connection is open: if there is nothing we have not shown, it is enough. */
  async function relieve(mine) {
    if (mine.relieving || mine.over) return;
    mine.relieving = true;
    const state = await ask(address(mine.id)).catch(() => null);
    mine.relieving = false;
    if (view !== mine || mine.over || !ready || !state) return;
    mine.known = Math.max(mine.known, state.last_offset);
    if (!mine.live) {
      if (!mine.source) connect(mine);
    } else if (mine.source && (mine.heard || 0) <= mine.last) {
      mine.source.close();
      mine.source = null;
    }
  }

  /** As the leader: hold one connection for the runs that tabs show. */
  function gather() {
    for (const [tab, { at }] of wanted) if (Date.now() - at > GONE_MS) wanted.delete(tab);
    const several = wanted.size > 1;  // a tab that is alone needs nobody between
    const runs = several ? [...new Set([...wanted.values()].map(({ run }) => run))].sort() : [];
    const key = runs.join('\n');
    if (key === leadRuns && (lead || !runs.length)) {
      return tell({ kind: 'runs', runs: lead?.opened ? runs : [] });
    }
    leadRuns = key;
    if (lead) lead.close();
    lead = null;
    if (!runs.length) return tell({ kind: 'runs', runs });
    const query = runs.map((run) => `run=${encodeURIComponent(run)}`);
    if (position !== null) query.push(`after=${position}`);
    const source = lead = new EventSource(`${base}events/stream?${query.join('&')}`);
    source.onopen = () => { source.opened = true; tell({ kind: 'runs', runs }); };
    source.onerror = () => {
      if (lead !== source) return;
      source.opened = false;
      if (source.readyState === EventSource.CLOSED) {  // asked for again with the next look
        lead = null;
        leadRuns = '';
        position = null;
      }
      tell({ kind: 'lost' });
    };
    for (const type of TYPES) {
      source.addEventListener(type, (message) => {
        if (lead !== source) return;
        if (type === 'events_missed') return tell({ kind: 'lost' });
        if (message.lastEventId) position = message.lastEventId;
        tell({ kind: 'event', event: JSON.parse(message.data) });
      });
    }
  }

  if (shared) {
    channel.onmessage = (message) => hear(message.data);
    navigator.locks.request(`agentstream leader ${base}`, () => {
      leading = true;
      tell({ kind: 'leader' });
      return new Promise(() => {});  // for as long as this tab lives
    });
    setInterval(() => { want(); if (leading) gather(); }, HERE_MS);
    addEventListener('pagehide', () => channel.postMessage({ kind: 'want', tab: me, run: '' }));
  }
