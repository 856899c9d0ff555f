  // --- events -------------------------------------------------------------------------------

  function receive(mine, event) {
    if (event.id !== null) {
      if (event.offset <= mine.last) return;  // had it already
      mine.last = event.offset;
    }
    const data = event.data || {};
    const handle = HANDLERS[event.type];
    if (handle) handle(data, event);
    else if ('agent' in data) AGENT_HANDLERS[event.type]?.(cardOf(data, event), data, event);
    settle(mine);
    if (mine.last === mine.known) announce(`${mine.name || 'Run'}: ${mine.status}`);
    wake();
  }
  const announce = (text) => { if (view.live) say(text); };

  function missed(data) {
    const many = data.last - data.first + 1;
    const text = `${number(many)} earlier event${many === 1 ? ' is' : 's are'} gone from the log.`;
    $('cards').append(make('p', { className: 'remark' }, text));
    if (view.last < data.last) view.last = data.last;
  }

  const HANDLERS = {
    events_missed: missed,
    workflow_started(data, event) {
      view.name = data.workflow || view.name;
      view.started = event.timestamp;
      if (view.status === 'queued') view.status = 'running';
      if (!view.input) learnInput(view);
      (data.steps || []).forEach((step, i) => {
        view.kinds.set(String(i), step.kind);
        chip(String(i), step.name, 'pending');
      });
    },
    workflow_step_started(data) {
      view.kinds.set(data.step, data.kind);
      if (data.attempt > 1) view.attempts.set(data.step, data.attempt);
      chip(data.step, data.name, 'running');
      if (data.attempt > 1) put(view.chips.get(data.step)?.about, ` attempt ${data.attempt}`);
      if (is(data.items)) countItems(data.step, data.items);
      if (data.run) runCard(data);
      if (data.kind === 'Function') functionCard(data);
    },
    workflow_step_completed(data) {
      chip(data.step, data.name, 'completed');
      endRun(data, 'completed');
      if (data.kind === 'Function' || data.kind === 'Wait') endFunction(data);
    },
    workflow_step_failed(data) {
      const stopped = data.error === 'Cancelled' ? 'cancelled' : 'failed';
      chip(data.step, data.name, data.will_retry ? 'running' : stopped);
      endRun(data, stopped);
      if (data.kind === 'Function') failFunction(data, stopped);
      if (data.will_retry) retract(data);
    },
    workflow_completed(data, event) { finish('completed', event.timestamp, data); },
    workflow_failed(data, event) { finish('failed', event.timestamp, data); },
    workflow_cancelled(data, event) { finish('cancelled', event.timestamp, data); },
    workflow_suspended(data, event) {
      const status = data.status === 'interrupted' ? 'interrupted' : 'suspended';
      if (is(data.usage?.total_tokens)) view.tokens = data.usage;
      rest({ status, reason: data.reason, pending: data.pending, since: event.timestamp });
      if (view.live && view.rest?.last_offset !== event.offset) lookAgain(view);
    },
    workflow_resumed(data) { goOn(data); },
    system_error(data, event) {
      if ('agent' in data) return remark(cardOf(data, event), data.message, true);
      $('cards').append(make('p', { className: 'remark bad' }, String(data.message || 'error')));
    },
  };

  const AGENT_HANDLERS = {
    agent_processing(card) { enter(card, 'preparing'); announce(`${card.agent} begins`); },
    agent_llm_request_started(card, data, event) {
      beginRound(card, data.round);
      card.asked = event.timestamp;
      card.first = card.begun = null;
      card.count = 0;
      card.live = true;
      card.model = data.model || card.model;
      enter(card, 'waiting for the first token');
    },
    agent_llm_stream_chunk(card, data, event) {
      enter(card, 'writing');
      count(card, event);
      write(part(card, 'text', textPart), String(data.chunk ?? ''));
    },
    agent_llm_reasoning_chunk(card, data, event) {
      enter(card, 'thinking');
      count(card, event);
      const thought = part(card, 'reasoning', reasoningPart);
      const text = String(data.chunk ?? '');
      thought.length += text.length;
      write(thought, text);
      thoughts.add(thought);
    },
    agent_llm_request_completed(card, data) {
      card.live = false;
      if (is(data.first_token_s) && card.wait === null) card.wait = data.first_token_s;
      if (is(data.tokens_per_second)) { card.rate = data.tokens_per_second; card.about = ''; }
      if (is(data.usage?.completion_tokens)) card.tokens += data.usage.completion_tokens;
      if (is(data.usage?.total_tokens)) view.used.total_tokens += data.usage.total_tokens;
      if (is(data.usage?.cost)) {
        for (const one of [card, view.used]) one.cost = (one.cost || 0) + data.usage.cost;
      }
      card.model = data.model || card.model;
      card.part = null;
      enter(card, 'answered');
    },
    agent_llm_request_failed(card) {
      const guess = guessed(card);
      if (guess !== null) { card.rate = guess; card.about = '≈ '; }
      card.tokens += card.count;
      card.live = false;
      card.part = null;
    },
    agent_llm_request_retried(card, data) {
      card.tries += 1;
      remark(card, `Trying again in ${span(data.delay_s || 0)}: ${data.message || data.error}`);
      enter(card, 'trying again');
    },
    agent_fallback(card, data) {
      card.tries += 1;
      const by = (provider, model) => [provider, model].filter(Boolean).join(' ');
      remark(card, `${by(data.provider, data.model)} failed: ${data.message || data.error}; `
        + `asking ${by(data.next_provider, data.next_model)}`);
      enter(card, 'asking another');
    },
    tool_call_started(card, data) { startTool(card, data); enter(card, `calling ${data.name}`); },
    tool_call_completed(card, data) { endTool(card, data, 'completed'); },
    tool_call_failed(card, data) { endTool(card, data, 'failed'); },
    system_warning(card, data) { remark(card, data.message); },
    agent_output_invalid(card, data) {
      const found = data.problems.map(({ path, text }) => (path.length ? `${path.join('.')}: ${text}` : text));
      remark(card, `Not what was asked for${data.will_retry ? ', asked again' : ''}: ${found.join('; ')}`,
        !data.will_retry);
    },
    agent_completed(card) { leave(card, 'completed'); announce(`${card.agent} is done`); },
    agent_failed(card, data) {
      const stopped = data.error === 'Cancelled';
      if (!stopped) remark(card, `${data.error}: ${data.message}`, true);
      leave(card, stopped ? 'cancelled' : 'failed');
      announce(`${card.agent}: ${card.status}`);
    },
  };

  function finish(status, ended, data = {}) {
    view.status = status;
    view.ended = ended;
    if (is(data.usage?.total_tokens)) view.tokens = data.usage;
    if (status === 'failed' && data.message) problem(`${data.error}: ${data.message}`);
    if (status === 'cancelled' && data.reason) problem(`Why: ${data.reason}`);
    if (status === 'completed' && Array.isArray(data.warnings)) problem(data.warnings.join('; '));
    $('run-problem').classList.toggle('mild', status !== 'failed');
    for (const card of view.cards.values()) if (!card.over) leave(card, status);
    for (const { button } of view.chips.values()) {
      if (button.className === 'running' || RESTS.includes(button.className)) chipState(button, status);
    }
    view.rest = null;
    hideAsks();
    view.close();  // or it would come back, to be told 204
    want();
    linkState('connected');
    announce(`Run ${view.name} ${status}`);
    wake();
    refresh();
  }
  const problem = (text) => put($('run-problem'), text);

