  // --- keys -----------------------------------------------------------------------------------

  /** By key: what it does, for people, and how. */
  const KEYS = {
    '?': ['These keys', help],
    '/': ['Find a run', () => reach('find')],
    n: ['Start a run', () => { $('starting').open = true; reach('input'); }],
    j: ['The next run of the list', () => step(1)],
    k: ['The run before', () => step(-1)],
    m: ['To the run', () => $('main').focus()],
    r: ['What models wrote, or its markdown', toggleRaw],
    c: ['Copy the link to the run', () => $('sharing').firstChild.click()],
    e: ['To the end', () => { if (view) { view.follow = true; keepPlace(); showRun(); } }],
  };

  function reach(id) {
    const node = $(id);
    if (!node.checkVisibility()) return say(id === 'input' ? 'This server starts no runs' : 'There is no run');
    node.scrollIntoView({ block: 'nearest' });
    node.focus();
  }
  function step(by) {
    const links = [...$('runs').querySelectorAll('a')];
    const at = links.findIndex((each) => each.hasAttribute('aria-current'));
    const next = links[at < 0 ? 0 : at + by];
    if (!next) return;
    next.focus();
    next.click();
  }
  /** Of the card that has the focus; else of all. */
  function toggleRaw() {
    const card = document.activeElement.closest('.card');
    const buttons = [...(card || $('cards')).querySelectorAll('button.raw:not([hidden])')];
    const isRaw = buttons.some((each) => each.getAttribute('aria-pressed') === 'true');
    for (const each of buttons) if ((each.getAttribute('aria-pressed') === 'true') === isRaw) each.click();
    say(isRaw ? 'Markdown' : 'Raw');
  }
  function help() {
    $('help-keys').replaceChildren(
      ...Object.entries(KEYS).map(([key, [text]]) =>
        make('div', {}, make('dt', {}, make('kbd', {}, key)), make('dd', {}, text))),
      make('div', {}, make('dt', {}, make('kbd', {}, 'Ctrl'), '+', make('kbd', {}, 'Enter')),
        make('dd', {}, 'Start the run whose input is being written')));
    $('keys-on').checked = areKeysOn();
    $('help').showModal();
    $('help-title').focus();
  }
  const areKeysOn = () => localStorage.getItem('keys') !== 'off';

  addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    if (!areKeysOn() || $('help').open || !$('login').hidden) return;
    if (event.target.closest('input, textarea, select, [contenteditable]')) return;
    const known = Object.hasOwn(KEYS, event.key) && KEYS[event.key];
    if (!known) return;
    event.preventDefault();
    known[1]();
  });
  $('keys').addEventListener('click', help);
  $('keys-on').addEventListener('change', () =>
    ($('keys-on').checked ? localStorage.removeItem('keys') : localStorage.setItem('keys', 'off')));
  $('help-close').addEventListener('click', () => $('help').close());
  $('help').addEventListener('click', (event) => { if (event.target === $('help')) $('help').close(); });
  $('sharing').append(copyButton('Copy link to this run', () => location.href, 'Copy link'));

