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

export function scenePicture(parent, get, send) {
  // # Elements and state
  const id = `psnb-${Date.now()}-${count++}`;
  const root = make('div', parent, { className: 'psnb-picture' });
  // JupyterLab would move to the next cell on an arrow key
  root.setAttribute('data-lm-suppress-shortcuts', 'true');
  const canvas = make('canvas', root), svg = draw('svg', root, { role: 'presentation' });
  const note = make('div', root, { className: 'psnb-note' });
  canvas.setAttribute('role', 'img');
  let picture = null, cursor = -1, from = null, rubber = null, path = null;
  let keys = [];     // keys since the focus came or a person was chosen
  let asked = null;  // what was asked for and is not done yet
  const waiting = () => asked && asked.edition === get('edition');
  const chosenNow = () => waiting() ? asked.choose : get('selected');
  const draggedNow = () => waiting() ? asked.drag : get('dragged');

  // # Drawing
  function repaint(other = picture) {  // the picture itself, with its heat
    picture = other;
    canvas.style.visibility = picture ? 'visible' : 'hidden';
    if (picture) paint(canvas, picture, get('size'), get('heat'));
  }

  function frame(kind, box) {
    const g = draw('g', svg, { class: `psnb-box ${kind}` });
    draw('rect', g, { class: 'psnb-under' });
    draw('rect', g, { class: 'psnb-line' });
    place(g, box);
    return g;
  }

  function option(box, i, chosen) {  // one person
    const kind = (i === chosen ? 'psnb-chosen' : '') + (i === cursor ? ' psnb-cursor' : '');
    const g = frame(kind, box), label = get('labels')[i] || `box ${i + 1}`;
    const colour = get('colours')[i];
    g.id = `${id}-${i}`;
    if (colour && i !== chosen) g.querySelector('.psnb-line').style.stroke = colour;
    g.setAttribute('role', 'option');
    g.setAttribute('aria-selected', i === chosen);
    g.setAttribute('aria-label', label);
    draw('title', g).textContent = label;
  }

  function stroke(points) {  // grey over a part of someone
    return draw('polyline', svg, { class: 'psnb-stroke', points: line(points),
      'stroke-width': get('brush') });
  }

  function redraw() {  // everything over the picture
    const [w, h] = get('size'), chosen = chosenNow(), boxes = get('boxes');
    const many = boxes.length > 0, brush = get('can_brush');
    const drag = get('can_drag') || brush;
    svg.setAttribute('viewBox', `0 0 ${w} ${h}`);
    root.style.aspectRatio = `${w} / ${h}`;
    svg.replaceChildren();
    root.tabIndex = many ? 0 : -1;
    root.setAttribute('role', many ? 'listbox' : 'group');
    root.setAttribute('aria-label', get('label'));
    root.classList.toggle('psnb-can-click', many || drag);
    svg.style.touchAction = drag ? 'none' : 'auto';
    svg.style.cursor = brush ? 'cell' : drag ? 'crosshair' : 'default';
    canvas.setAttribute('aria-label', get('alt'));
    note.textContent = get('note');
    get('strokes').forEach(stroke);
    boxes.forEach((box, i) => option(box, i, chosen));
    const last = svg.querySelector('.psnb-chosen');
    if (last) svg.append(last);  // on top of its neighbours
    if (cursor >= 0 && many) root.setAttribute('aria-activedescendant', `${id}-${cursor}`);
    else root.removeAttribute('aria-activedescendant');
    rubber = path ? stroke(path) : null;
    if (!path && draggedNow().length === 4) rubber = frame('psnb-chosen psnb-dragged', draggedNow());
  }

  // # Choosing
  function ask(choose, drag, edition, typed) {  // shown at once, done later
    asked = { choose, drag, edition, typed };
    cursor = choose;
    keys = [];
    send({ choose, drag, edition });
    redraw();
  }

  function again(typed) {  // the same keys on other people
    return walk(typed, Math.max(0, get('selected')), get('boxes').length);
  }

  function answered(late) {
    // late: the people were others by then. What was typed is repeated with those who are there
    // now; what was pointed at is not
    const typed = late && asked ? asked.typed : [];
    asked = null;
    if (typed.length && get('boxes').length) ask(again(typed), [], get('edition'), typed);
    else redraw();
  }

  function renumbered() {  // there are other people
    if (cursor >= 0) cursor = get('boxes').length ? again(keys) : -1;
    redraw();
  }

  // # Mouse
  function where(e) {  // in px of the boxes
    const r = svg.getBoundingClientRect(), [w, h] = get('size');
    const cut = (v, n) => Math.min(n, Math.max(0, v));
    return [cut((e.clientX - r.left) / r.width * w, w), cut((e.clientY - r.top) / r.height * h, h)];
  }

  svg.addEventListener('pointerdown', e => {
    if (e.button !== 0) return;
    from = where(e);
    from.edition = get('edition');
    keys = [];
    path = get('can_brush') ? [from] : null;
    svg.setPointerCapture(e.pointerId);
    root.focus({ preventScroll: true });
    if (path) redraw();
  });
  svg.addEventListener('pointermove', e => {
    if (!from) return;
    if (path) {
      path.push(where(e));
      rubber.setAttribute('points', line(path));
      return;
    }
    if (!get('can_drag')) return;
    const box = span(from, where(e));
    if (rubber) place(rubber, box); else rubber = frame('psnb-chosen psnb-dragged', box);
  });
  svg.addEventListener('pointerup', e => {
    if (!from) return;
    const start = from, box = span(from, where(e));
    const scale = svg.getBoundingClientRect().width / get('size')[0];
    const shorter = Math.min(box[2] - box[0], box[3] - box[1]) * scale;
    const stroked = path && path.slice(0, 400).map(([x, y]) => [x, y]);
    from = path = null;
    if (stroked) {
      send({ choose: -1, drag: [], stroke: stroked, edition: start.edition });
      return;
    }
    if (get('can_drag') && shorter > 5) { ask(-1, box, start.edition, []); return; }
    const i = start.edition === get('edition') ? under(get('boxes'), start) : -1;
    if (i >= 0) ask(i, [], start.edition, []); else redraw();
  });
  svg.addEventListener('pointercancel', () => { from = path = null; redraw(); });

  // # Keyboard
  root.addEventListener('keydown', e => {
    const n = get('boxes').length;
    if (e.key === 'Escape' && from) { from = path = null; redraw(); return; }
    if (!n) return;
    if (moves(e.key)) {
      keys.push(e.key);
      cursor = walk([e.key], cursor, n);
    } else if (e.key === 'Enter' || e.key === ' ') {
      if (cursor >= 0) ask(cursor, [], get('edition'), keys);
    } else return;
    e.preventDefault();
    e.stopPropagation();
    redraw();
  });
  root.addEventListener('focus', () => {
    keys = [];
    if (cursor < 0 && root.matches(':focus-visible')) cursor = Math.max(0, chosenNow());
    redraw();
  });
  root.addEventListener('blur', () => { cursor = -1; keys = []; redraw(); });

  // # What the user of this module calls
  repaint();
  redraw();
  return { canvas, repaint, redraw, answered, renumbered };
}
