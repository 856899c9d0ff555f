  // --- what an agent says ---------------------------------------------------------------------

  const LATE_MS = 28, MOST_PAINT_MS = 8, LEAST_PAINT_MS = 2;
  const pending = new Map();  // text to be put in at the next frame, by its part
  const growing = new Set();  // parts that have more than a frame had time for
  let paintMs = 4, hasPainted = false;  // what a frame may take for texts; whether the last one had any

  function textPart(card) {
    const node = make('div', {});
    const made = { node, source: [] };
    card.texts.push(made);
    for (const each of card.node.querySelectorAll('.tools, .raw')) show(each, true);
    dress(made, card.isRaw);
    return made;
  }
  /** Markdown, or the text as the model wrote it. */
  function dress(made, isRaw) {
    made.node.className = isRaw ? 'text' : 'text md';
    made.node.dir = isRaw ? 'auto' : '';
    made.node.replaceChildren();
    made.out = isRaw ? new Plain(made.node) : new Markdown(made.node);
  }
  function reasoningPart() {
    const about = make('span', { className: 'about' });
    const text = make('div', { className: 'text', dir: 'auto' });
    const node = make('details', { className: 'reasoning' },
      make('summary', {}, make('b', {}, 'Reasoning'), ' ', about), text);
    node.open = sessionStorage.getItem('reasoning') === 'open';
    node.querySelector('summary').addEventListener('click', () => {
      sessionStorage.setItem('reasoning', node.open ? 'closed' : 'open');  // it opens after this
    });
    return { node, out: new Plain(text), about, length: 0 };
  }

  /** The buttons of a card: its text as the model wrote it, and a copy of that. */
  function cardTools(card) {
    const raw = make('button', { type: 'button', className: 'small raw', hidden: true }, 'Raw');
    raw.setAttribute('aria-pressed', false);
    raw.addEventListener('click', () => {
      card.isRaw = !card.isRaw;
      raw.setAttribute('aria-pressed', card.isRaw);
      for (const made of card.texts.filter((one) => one.out)) {
        pending.delete(made);
        dress(made, card.isRaw);
        write(made, made.source.splice(0).join(''));
      }
      wake();
    });
    const copying = copyButton('Copy what it said', () =>
      card.texts.map((made) => made.source.join('')).join('\n\n'));
    card.node.querySelector('.tools').append(raw, copying);
  }

  function write(made, text) {
    made.source?.push(text);
    const waiting = pending.get(made);
    if (waiting) waiting.push(text); else pending.set(made, [text]);
  }
  /** As much of what was written as a frame has time for. */
  function paintTexts() {
    for (const [made, texts] of pending) {
      made.out.add(texts.join(''));
      growing.add(made);
    }
    pending.clear();
    // What is put in has to be laid out as well.  After a late frame comes one without any text, so
    // that the reader can scroll, and the next have less; they catch up later.
    const began = performance.now(), isLate = began - woken > LATE_MS && hasPainted && !document.hidden;
    paintMs = isLate ? Math.max(paintMs / 2, LEAST_PAINT_MS) : Math.min(paintMs + .5, MOST_PAINT_MS);
    hasPainted = !isLate;
    if (hasPainted) {
      for (const made of growing) if (made.out.step(began + paintMs)) growing.delete(made);
    }
    if (growing.size) wake();
  }

