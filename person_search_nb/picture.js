// A picture with boxes to choose from: the browser's half of `widgets.ScenePicture`.
// Python and the browser share the traits of the widget; a choice goes to Python as a message.

// # Small tools
const NS = 'http://www.w3.org/2000/svg';
const STEP = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
const TRAITS = ['size', 'boxes', 'labels', 'colours', 'selected', 'dragged', 'can_drag', 'can_brush',
  'brush', 'strokes', 'alt', 'label', 'note'];
let count = 0;

function make(tag, kind, parent, ns) {
  const e = ns ? document.createElementNS(NS, tag) : document.createElement(tag);
  if (kind) e.setAttribute('class', kind);
  parent.append(e);
  return e;
}

function place(g, [x1, y1, x2, y2]) {
  g.querySelectorAll('rect').forEach(r => {
    r.setAttribute('x', x1);
    r.setAttribute('y', y1);
    r.setAttribute('width', Math.max(0, x2 - x1));
    r.setAttribute('height', Math.max(0, y2 - y1));
  });
}

function line(points) {  // a stroke of the brush; a dot is a very short one
  const more = points.length > 1 ? points : [points[0], [points[0][0] + .01, points[0][1]]];
  return more.map(p => p.join(',')).join(' ');
}

function span(a, b) {  // the box between two corners
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
}

function walk(typed, at, n) {  // where a series of keys leads among n people
  return typed.reduce((c, k) => {
    if (k === 'Home') return 0;
    if (k === 'End') return n - 1;
    if (c < 0) return STEP[k] > 0 ? 0 : n - 1;
    return (c + STEP[k] + n) % n;
  }, at);
}

// # Elements and state
function render({ model, el }) {
  const id = `psnb-${Date.now()}-${count++}`;
  const root = make('div', 'psnb-picture', el);
  // JupyterLab would move to the next cell on an arrow key
  root.setAttribute('data-lm-suppress-shortcuts', 'true');
  const img = make('img', '', root), svg = make('svg', '', root, true);
  const note = make('div', 'psnb-note', root);
  img.draggable = false;
  svg.setAttribute('role', 'presentation');
  let url = null, cursor = -1, from = null, rubber = null, path = null;
  let keys = [];     // keys since the focus came or a person was chosen
  let asked = null;  // what Python was asked for and has not done yet
  const boxes = () => model.get('boxes');
  const waiting = () => asked && asked.edition === model.get('edition');
  const chosen_now = () => waiting() ? asked.choose : model.get('selected');
  const dragged_now = () => waiting() ? asked.drag : model.get('dragged');

  // # Drawing
  function paint() {  // the picture itself
    const data = model.get('picture'), old = url;
    url = data && data.byteLength ? URL.createObjectURL(new Blob([data])) : null;
    if (url) img.src = url; else img.removeAttribute('src');
    img.style.visibility = url ? 'visible' : 'hidden';
    if (old) URL.revokeObjectURL(old);
  }

  function frame(kind, box) {
    const g = make('g', 'psnb-box ' + kind, svg, true);
    make('rect', 'psnb-under', g, true);
    make('rect', 'psnb-line', g, true);
    place(g, box);
    return g;
  }

  function option(box, i, chosen) {  // one person
    const kind = (i === chosen ? 'psnb-chosen' : '') + (i === cursor ? ' psnb-cursor' : '');
    const g = frame(kind, box), label = model.get('labels')[i] || `box ${i + 1}`;
    const colour = model.get('colours')[i];
    g.id = `${id}-${i}`;
    if (colour && i !== chosen) g.querySelector('.psnb-line').style.stroke = colour;
    g.setAttribute('role', 'option');
    g.setAttribute('aria-selected', i === chosen);
    g.setAttribute('aria-label', label);
    make('title', '', g, true).textContent = label;
  }

  function stroke(points) {  // grey over a part of someone
    const l = make('polyline', 'psnb-stroke', svg, true);
    l.setAttribute('points', line(points));
    l.setAttribute('stroke-width', model.get('brush'));
    return l;
  }

  function draw() {  // everything over the picture
    const [w, h] = model.get('size'), chosen = chosen_now();
    const many = boxes().length > 0, brush = model.get('can_brush');
    const drag = model.get('can_drag') || brush;
    svg.setAttribute('viewBox', `0 0 ${w} ${h}`);
    root.style.aspectRatio = `${w} / ${h}`;
    svg.replaceChildren();
    root.tabIndex = many ? 0 : -1;
    root.setAttribute('role', many ? 'listbox' : 'group');
    root.setAttribute('aria-label', model.get('label'));
    root.classList.toggle('psnb-can-click', many || drag);
    svg.style.touchAction = drag ? 'none' : 'auto';
    svg.style.cursor = brush ? 'cell' : drag ? 'crosshair' : 'default';
    img.alt = model.get('alt');
    note.textContent = model.get('note');
    model.get('strokes').forEach(stroke);
    boxes().forEach((box, i) => option(box, i, chosen));
    const last = svg.querySelector('.psnb-chosen');
    if (last) svg.append(last);  // on top of its neighbours
    if (cursor >= 0 && many) root.setAttribute('aria-activedescendant', `${id}-${cursor}`);
    else root.removeAttribute('aria-activedescendant');
    rubber = path ? stroke(path) : null;
    if (!path && dragged_now().length === 4) rubber = frame('psnb-chosen psnb-dragged', dragged_now());
  }

  // # Choosing
  function ask(choose, drag, edition, typed) {  // shown at once, done by Python
    asked = { choose, drag, edition, typed };
    cursor = choose;
    keys = [];
    model.send({ choose, drag, edition });
    draw();
  }

  function again(typed) {  // the same keys on other people
    return walk(typed, Math.max(0, model.get('selected')), boxes().length);
  }

  model.on('msg:custom', answer => {
    // late: the people were others by then. What was typed is repeated with those who are there
    // now; what was pointed at is not
    const late = answer.late && asked ? asked.typed : [];
    asked = null;
    if (late.length && boxes().length) ask(again(late), [], model.get('edition'), late);
    else draw();
  });

  // # Mouse
  function where(e) {  // in px of the boxes
    const r = svg.getBoundingClientRect(), [w, h] = model.get('size');
    const cut = (v, n) => Math.min(n, Math.max(0, v));
    return [cut((e.clientX - r.left) / r.width * w, w), cut((e.clientY - r.top) / r.height * h, h)];
  }

  function under([x, y]) {  // the smallest box at a place
    const area = ([a, b, c, d]) => (c - a) * (d - b);
    const there = boxes().map((b, i) => [b, i])
      .filter(([b]) => b[0] <= x && x <= b[2] && b[1] <= y && y <= b[3]);
    if (!there.length) return -1;
    return there.reduce((a, b) => area(a[0]) <= area(b[0]) ? a : b)[1];
  }

  svg.addEventListener('pointerdown', e => {
    if (e.button !== 0) return;
    from = where(e);
    from.edition = model.get('edition');
    keys = [];
    path = model.get('can_brush') ? [from] : null;
    svg.setPointerCapture(e.pointerId);
    root.focus({ preventScroll: true });
    if (path) draw();
  });
  svg.addEventListener('pointermove', e => {
    if (!from) return;
    if (path) {
      path.push(where(e));
      rubber.setAttribute('points', line(path));
      return;
    }
    if (!model.get('can_drag')) return;
    const box = span(from, where(e));
    if (rubber) place(rubber, box); else rubber = frame('psnb-chosen psnb-dragged', box);
  });
  svg.addEventListener('pointerup', e => {
    if (!from) return;
    const start = from, box = span(from, where(e));
    const scale = svg.getBoundingClientRect().width / model.get('size')[0];
    const shorter = Math.min(box[2] - box[0], box[3] - box[1]) * scale;
    const stroked = path && path.slice(0, 400).map(([x, y]) => [x, y]);
    from = path = null;
    if (stroked) {
      model.send({ choose: -1, drag: [], stroke: stroked, edition: start.edition });
      return;
    }
    if (model.get('can_drag') && shorter > 5) { ask(-1, box, start.edition, []); return; }
    const i = start.edition === model.get('edition') ? under(start) : -1;
    if (i >= 0) ask(i, [], start.edition, []); else draw();
  });
  svg.addEventListener('pointercancel', () => { from = path = null; draw(); });

  // # Keyboard
  root.addEventListener('keydown', e => {
    const n = boxes().length;
    if (e.key === 'Escape' && from) { from = path = null; draw(); return; }
    if (!n) return;
    if (e.key in STEP || e.key === 'Home' || e.key === 'End') {
      keys.push(e.key);
      cursor = walk([e.key], cursor, n);
    } else if (e.key === 'Enter' || e.key === ' ') {
      if (cursor >= 0) ask(cursor, [], model.get('edition'), keys);
    } else return;
    e.preventDefault();
    e.stopPropagation();
    draw();
  });
  root.addEventListener('focus', () => {
    keys = [];
    if (cursor < 0 && root.matches(':focus-visible')) cursor = Math.max(0, chosen_now());
    draw();
  });
  root.addEventListener('blur', () => { cursor = -1; keys = []; draw(); });

  // # Changes made by Python
  model.on('change:picture', paint);
  model.on('change:edition', () => {
    if (cursor >= 0) cursor = boxes().length ? again(keys) : -1;
    draw();
  });
  for (const k of TRAITS) model.on(`change:${k}`, draw);
  paint();
  draw();
  return () => { if (url) URL.revokeObjectURL(url); };
}

export default { render };
