  // --- text as it is, long or not -------------------------------------------------------------

  const MOST_CHUNK = 4096, MOST_LINE = 16384;

  /** A text that grows at its end, in chunks of whole lines: the browser lays out those in sight. */
  class Plain {
    constructor(node) {
      this.node = node;
      this.chunk = null;  // the last one's text node
    }
    add(text) {
      while (text) {
        if (!this.chunk || this.isFull()) {
          this.chunk = document.createTextNode('');
          this.node.append(make('div', { className: 'chunk' }, this.chunk));
        }
        const piece = text.slice(0, this.room(text));
        this.chunk.appendData(piece);
        text = text.slice(piece.length);
      }
    }
    step() { return true; }  // whether all of it is shown

    isFull() {
      const { data, length } = this.chunk;
      return length >= MOST_LINE || (length >= MOST_CHUNK && data.endsWith('\n'));
    }
    /** How much of a text the last chunk takes: up to a line's end, if there is one near. */
    room(text) {
      const end = text.indexOf('\n', Math.max(0, MOST_CHUNK - this.chunk.length - 1)) + 1;
      return whole(text, Math.min(end || text.length, MOST_LINE - this.chunk.length));
    }
  }

  /** At most so many characters of a text, from 1 on, and none of them half. */
  function whole(text, most) {
    const isHalf = most < text.length && /[\ud800-\udbff]/.test(text[most - 1]);
    return isHalf ? Math.max(most - 1, 2) : most;
  }

  const TURNS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  /** Code without the signs that would show it in another order than it runs in. */
  const escaped = (code) => code.replace(TURNS, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);

  // --- copying --------------------------------------------------------------------------------

  /** A button that copies what `text()` gives, and says so; `label` is what it shows. */
  function copyButton(name, text, label = 'Copy') {
    const button = make('button', { type: 'button', className: 'small', 'aria-label': name }, label);
    button.addEventListener('click', async () => {
      const isCopied = await copy(text());
      put(button, isCopied ? 'Copied' : 'Not copied');
      say(isCopied ? 'Copied' : 'The browser did not let it be copied');
      setTimeout(() => put(button, label), 1500);
    });
    return button;
  }
  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch { /* not there without TLS, or not allowed */ }
    const before = document.activeElement;
    const field = make('textarea', { value: text, className: 'unseen', readOnly: true });
    document.body.append(field);
    field.select();
    const isCopied = document.execCommand('copy');
    field.remove();
    before?.focus({ preventScroll: true });
    return isCopied;
  }

