// One network's column of the page: its picture with people to choose from, a caption, its ranking.

import { make } from './elements.js';
import { showHits } from './hits.js';
import { ScenePicture } from './scene_picture.js';

const EMPTY = { size: [4, 3], boxes: [], labels: [], colours: [], selected: -1, dragged: [],
  can_drag: false, can_brush: false, brush: 0, strokes: [], alt: '', label: '', note: '',
  heat: null, edition: '' };

export class Panel {
  // choose: called with the number of a box and the edition that it belongs to
  constructor(parent, { name, title, cost }, choose) {
    const root = make('section', parent);
    root.dataset.network = name;
    Object.assign(this, { root, title });
    this.shown = { ...EMPTY, label: `${title}: people found; arrow keys, then Enter` };
    make('h2', root, { textContent: title });
    make('p', root, { className: 'cost', textContent: cost });
    this.picture = new ScenePicture(root, key => this.shown[key], choose);
    this.caption = make('p', root, { className: 'caption' });
    this.hits = make('ol', root);
    this.hits.setAttribute('aria-label', `found by: ${title}`);
  }

  // what is shown is of an earlier move, until `show` and `rank`, or `settle`
  wait() { for (const part of [this.root, this.hits]) part.setAttribute('aria-busy', 'true'); }

  settle() {
    for (const part of [this.root, this.hits]) part.removeAttribute('aria-busy');
    this.picture.answered(false);
  }

  // image: of `toImage`; what: some of the things a `ScenePicture` shows
  show(image, what) {
    const [, , h, w] = image.dims, old = this.shown.edition;
    Object.assign(this.shown, { size: [w, h], selected: -1 }, what);
    this.root.removeAttribute('aria-busy');
    this.picture.repaint(image.canvas);
    this.picture.answered(false);
    if (this.shown.edition !== old) this.picture.renumbered();
  }

  say(caption) { this.caption.textContent = caption; }

  select(number) {  // -1: nobody
    this.shown.selected = number;
    this.picture.redraw();
  }

  rank(hits) {
    this.hits.removeAttribute('aria-busy');
    showHits(this.hits, hits);
  }

  // the picture with its boxes, at a place of another drawing
  copy(pen, left, top) {
    pen.drawImage(this.picture.canvas, left, top);
    this.shown.boxes.forEach(([x1, y1, x2, y2], i) => {
      const chosen = i === this.shown.selected;
      Object.assign(pen, { strokeStyle: chosen ? '#00d5ff' : '#fff', lineWidth: chosen ? 3 : 1 });
      pen.strokeRect(left + x1, top + y1, x2 - x1, y2 - y1);
    });
  }
}
