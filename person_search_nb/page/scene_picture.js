// A picture with boxes to choose from, by mouse and by keyboard. Whoever uses it answers two
// questions: `get(name)`, what is to be shown, and `send(choice)`, what to do with a choice.
// Shown are: size [width, height] px the boxes count in; boxes [[x1, y1, x2, y2]]; labels, colours,
// one for each; selected, number of the chosen box, -1 for none; dragged, a box drawn by hand or
// []; can_drag; can_brush, brush, strokes; alt, label, note; heat, as `tint` wants it, or null;
// edition, another for every other set of people. A choice is { choose, drag, edition, stroke }.

import { moves, span, under, walk } from './choosing.js';
import { draw, make } from './elements.js';
import { paint } from './heat.js';

let count = 0;

function place(g, [x1, y1, x2, y2]) {
  const sides = { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1) };
  g.querySelectorAll('rect').forEach(r => {
    for (const [name, value] of Object.entries(sides)) r.setAttribute(name, value);
  });
}

function line(points) {  // a stroke of the brush; a dot is a very short one
  const more = points.length > 1 ? points : [points[0], [points[0][0] + 0.01, points[0][1]]];
  return more.map(p => p.join(',')).join(' ');
}

export class ScenePicture {
  // # Elements and state
  constructor(parent, get, send) {
    Object.assign(this, { get, send, id: `psnb-${Date.now()}-${count++}` });
    this.root = make('div', parent, { className: 'psnb-picture' });
    // JupyterLab would move to the next cell on an arrow key
    this.root.setAttribute('data-lm-suppress-shortcuts', 'true');
    this.canvas = make('canvas', this.root, { id: `${this.id}-picture` });
    this.canvas.setAttribute('aria-hidden', 'true');  // it describes the list
    this.svg = draw('svg', this.root, { role: 'presentation' });
    this.note = make('div', this.root, { className: 'psnb-note', id: `${this.id}-note` });
    this.picture = null;
    this.cursor = -1;
    this.keys = [];     // since the focus came or a person was chosen
    this.asked = null;  // what was asked for and is not done yet
    this.from = this.path = this.rubber = null;  // where the mouse went down, and what it draws
    this.listen();
    this.repaint();
    this.redraw();
  }

  waiting() { return this.asked && this.asked.edition === this.get('edition'); }
  chosen() { return this.waiting() ? this.asked.choose : this.get('selected'); }
  dragged() { return this.waiting() ? this.asked.drag : this.get('dragged'); }

  // # Drawing
  repaint(picture = this.picture) {  // the picture itself, with its heat
    this.picture = picture;
    this.canvas.style.visibility = picture ? 'visible' : 'hidden';
    if (picture) paint(this.canvas, picture, this.get('size'), this.get('heat'));
  }

  redraw() {  // everything over the picture
    const [w, h] = this.get('size'), boxes = this.get('boxes'), chosen = this.chosen();
    this.svg.setAttribute('viewBox', `0 0 ${w} ${h}`);
    this.root.style.aspectRatio = `${w} / ${h}`;
    this.root.style.maxWidth = `calc(80vh * ${w / h})`;  // a tall one stays on the screen
    this.svg.replaceChildren();
    this.describe(boxes.length);
    this.get('strokes').forEach(points => this.stroke(points));
    boxes.forEach((box, i) => this.option(box, i, chosen));
    if (chosen in boxes) this.onTop(chosen);
    this.rubber = this.path ? this.stroke(this.path) : null;
    const box = this.dragged();
    if (!this.path && box.length === 4) this.rubber = this.frame('psnb-chosen psnb-dragged', box);
  }

  describe(people) {  // for those who cannot see it, and for the mouse
    const { root, svg, get } = this, brush = get('can_brush'), drag = get('can_drag') || brush;
    root.tabIndex = people ? 0 : -1;
    root.setAttribute('role', people ? 'listbox' : 'img');  // a list holds nothing but options
    root.setAttribute('aria-label', people ? get('label') : get('alt'));
    root.setAttribute('aria-describedby', [people ? this.canvas.id : '', this.note.id].join(' '));
    root.classList.toggle('psnb-can-click', people > 0 || drag);
    svg.style.touchAction = drag ? 'none' : 'auto';
    svg.style.cursor = brush ? 'cell' : drag ? 'crosshair' : 'default';
    this.canvas.setAttribute('aria-label', get('alt'));
    this.note.textContent = get('note');
    const current = this.cursor >= 0 && people > 0;
    if (current) root.setAttribute('aria-activedescendant', `${this.id}-${this.cursor}`);
    else root.removeAttribute('aria-activedescendant');
  }

  frame(kind, box) {
    const g = draw('g', this.svg, { class: `psnb-box ${kind}` });
    draw('rect', g, { class: 'psnb-under' });
    draw('rect', g, { class: 'psnb-line' });
    place(g, box);
    return g;
  }

  option(box, i, chosen) {  // one person
    const kind = (i === chosen ? 'psnb-chosen' : '') + (i === this.cursor ? ' psnb-cursor' : '');
    const g = this.frame(kind, box), label = this.get('labels')[i] || `box ${i + 1}`;
    const colour = this.get('colours')[i];
    g.id = `${this.id}-${i}`;
    if (colour && i !== chosen) g.querySelector('.psnb-line').style.stroke = colour;
    g.setAttribute('role', 'option');
    g.setAttribute('aria-selected', i === chosen);
    g.setAttribute('aria-posinset', i + 1);
    g.setAttribute('aria-setsize', this.get('boxes').length);
    g.setAttribute('aria-label', label);
    draw('title', g).textContent = label;
  }

  onTop(i) {  // of its neighbours; read aloud it stays between them
    draw('use', this.svg, { href: `#${this.id}-${i}`, class: 'psnb-on-top', 'aria-hidden': true });
  }

  stroke(points) {  // grey over a part of someone
    return draw('polyline', this.svg, { class: 'psnb-stroke', points: line(points),
      'stroke-width': this.get('brush') });
  }

  // # Choosing
  ask(choose, drag, edition, typed) {  // shown at once, done later
    this.asked = { choose, drag, edition, typed };
    this.cursor = choose;
    this.keys = [];
    this.send({ choose, drag, edition });
    this.redraw();
  }

  again(typed) {  // the same keys on other people
    return walk(typed, Math.max(0, this.get('selected')), this.get('boxes').length);
  }

  answered(late) {
    // late: the people were others by then. What was typed is repeated with those who are there
    // now; what was pointed at is not
    const typed = late && this.asked ? this.asked.typed : [];
    this.asked = null;
    if (typed.length && this.get('boxes').length) {
      this.ask(this.again(typed), [], this.get('edition'), typed);
    } else this.redraw();
  }

  renumbered() {  // there are other people
    if (this.cursor >= 0) this.cursor = this.get('boxes').length ? this.again(this.keys) : -1;
    this.redraw();
  }

  // # Mouse
  where(e) {  // in px of the boxes
    const r = this.svg.getBoundingClientRect(), [w, h] = this.get('size');
    const cut = (v, n) => Math.min(n, Math.max(0, v));
    return [cut((e.clientX - r.left) / r.width * w, w), cut((e.clientY - r.top) / r.height * h, h)];
  }

  down(e) {
    if (e.button !== 0) return;
    this.from = this.where(e);
    this.from.edition = this.get('edition');
    this.keys = [];
    this.path = this.get('can_brush') ? [this.from] : null;
    this.svg.setPointerCapture(e.pointerId);
    this.root.focus({ preventScroll: true });
    if (this.path) this.redraw();
  }

  move(e) {
    if (!this.from) return;
    if (this.path) {
      this.path.push(this.where(e));
      this.rubber.setAttribute('points', line(this.path));
    } else if (this.get('can_drag')) {
      const box = span(this.from, this.where(e));
      if (this.rubber) place(this.rubber, box);
      else this.rubber = this.frame('psnb-chosen psnb-dragged', box);
    }
  }

  up(e) {
    if (!this.from) return;
    const start = this.from, { edition } = start, { path } = this;
    const box = span(start, this.where(e));
    this.from = this.path = null;
    if (path) {
      const stroke = path.slice(0, 400).map(([x, y]) => [x, y]);
      this.send({ choose: -1, drag: [], stroke, edition });
      return;
    }
    const scale = this.svg.getBoundingClientRect().width / this.get('size')[0];
    const shorter = Math.min(box[2] - box[0], box[3] - box[1]) * scale;  // px of the screen
    const i = edition === this.get('edition') ? under(this.get('boxes'), start) : -1;
    if (this.get('can_drag') && shorter > 5) this.ask(-1, box, edition, []);
    else if (i >= 0) this.ask(i, [], edition, []);
    else this.redraw();
  }

  cancel() {
    this.from = this.path = null;
    this.redraw();
  }

  // # Keyboard
  key(e) {
    const n = this.get('boxes').length;
    if (e.key === 'Escape' && this.from) { this.cancel(); return; }
    if (!n) return;
    if (moves(e.key)) {
      this.keys.push(e.key);
      this.cursor = walk([e.key], this.cursor, n);
    } else if (e.key === 'Enter' || e.key === ' ') {
      if (this.cursor >= 0) this.ask(this.cursor, [], this.get('edition'), this.keys);
    } else return;
    e.preventDefault();
    e.stopPropagation();
    this.redraw();
  }

  focused() {
    this.keys = [];
    const byKey = this.root.matches(':focus-visible');
    if (this.cursor < 0 && byKey) this.cursor = Math.max(0, this.chosen());
    this.redraw();
  }

  left() {
    this.cursor = -1;
    this.keys = [];
    this.redraw();
  }

  // # What happens when
  listen() {
    const { svg, root } = this;
    svg.addEventListener('pointerdown', e => this.down(e));
    svg.addEventListener('pointermove', e => this.move(e));
    svg.addEventListener('pointerup', e => this.up(e));
    svg.addEventListener('pointercancel', () => this.cancel());
    root.addEventListener('keydown', e => this.key(e));
    root.addEventListener('focus', () => this.focused());
    root.addEventListener('blur', () => this.left());
  }
}
