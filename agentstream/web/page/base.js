  const TYPES = [
    'workflow_started', 'workflow_step_started', 'workflow_step_completed', 'workflow_step_failed',
    'workflow_completed', 'workflow_failed', 'workflow_cancelled', 'workflow_suspended',
    'workflow_resumed', 'agent_processing', 'agent_completed', 'agent_failed', 'agent_output',
    'agent_output_invalid', 'agent_llm_request_started', 'agent_llm_stream_chunk',
    'agent_llm_reasoning_chunk', 'agent_llm_request_retried', 'agent_fallback',
    'agent_llm_request_completed',
    'agent_llm_request_failed', 'tool_call_started', 'tool_call_completed', 'tool_call_failed',
    'system_warning', 'system_error', 'events_missed',
  ];
  const RESTS = ['suspended', 'interrupted'], ACTIVE = ['queued', 'running', ...RESTS];
  const POLL_MS = 2000, MOST_BACKOFF_MS = 15000, NEAR_END = 48, LONG_INPUT = 400;
  // Mounted in another app the page is not at "/".
  const base = location.pathname.replace(/\/?$/, '/');
  const $ = (id) => document.getElementById(id);

  // --- small things -------------------------------------------------------------------------

  /** An element; its children are elements and texts, and a text is never read as HTML. */
  function make(tag, properties = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in node) node[name] = value; else node.setAttribute(name, value);
    }
    node.append(...children);
    return node;
  }
  const put = (node, text) => { if (node && node.textContent !== text) node.textContent = text; };
  const show = (node, yes) => { if (node.hidden === yes) node.hidden = !yes; };
  const say = (text) => put($('say'), text);
  const number = (value, digits = 0) =>
    value.toLocaleString('en', { maximumFractionDigits: digits, minimumFractionDigits: digits });
  const money = (value) => value.toLocaleString('en', { maximumSignificantDigits: 3 });
  const is = (value) => typeof value === 'number' && Number.isFinite(value);

  let skew = 0;  // the server's clock less ours, in seconds
  const now = () => Date.now() / 1000 + skew;

  function span(seconds) {
    if (seconds < .9995) return `${number(seconds * 1000)} ms`;
    if (seconds < 60) return `${number(seconds, seconds < 10 ? 1 : 0)} s`;
    const whole = Math.round(seconds);
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    return `${Math.floor(whole / 3600)} h ${Math.floor(whole % 3600 / 60)} min`;
  }
  function ago(time) {
    const seconds = now() - time;
    if (seconds < 45) return 'now';
    if (seconds < 3600) return `${Math.round(seconds / 60)} min`;
    if (seconds < 86400) return `${Math.round(seconds / 3600)} h`;
    return new Date(time * 1000).toLocaleDateString();
  }
  /** Fill a <dl> from [name, value] pairs, leaving out what is not known. */
  function facts(list, pairs) {
    const known = pairs.filter((pair) => pair[1]);
    known.forEach(([name, value], i) => {
      const row = list.children[i] || list.appendChild(make('div', {}, make('dt'), make('dd')));
      put(row.firstChild, name);
      if (typeof value === 'object') link(row.lastChild, value); else put(row.lastChild, value);
    });
    while (list.children.length > known.length) list.lastChild.remove();
  }

  /** A way to another run. */
  function link(node, { run, text }) {
    const href = `#${encodeURIComponent(run)}`;
    if (node.firstChild?.getAttribute?.('href') === href) return put(node.firstChild, text);
    node.replaceChildren(make('a', { href }, text));
  }

  class Refused extends Error {
    constructor(status, message) { super(message); this.status = status; }
  }
  /** The answer's JSON.  Throws Refused for an HTTP error, TypeError if nobody answers. */
  async function ask(path, body) {
    const options = { cache: 'no-store', credentials: 'same-origin' };
    if (body) {
      options.method = 'POST';
      options.headers = { 'Content-Type': 'application/json' };
      options.body = typeof body === 'string' ? body : JSON.stringify(body);
    }
    const answer = await fetch(base + path, options);
    const date = Date.parse(answer.headers.get('Date') || '');
    if (date) {
      const off = (date - Date.now()) / 1000;
      skew = Math.abs(off) > 3 ? off : 0;  // Date has whole seconds only
    }
    if (answer.ok) return answer.status === 204 ? {} : answer.json();
    const said = await answer.json().catch(() => ({}));
    const refusal = new Refused(answer.status, said.error?.message || `HTTP ${answer.status}`);
    if (answer.status === 401 && path !== 'login') showLogin();
    throw refusal;
  }

