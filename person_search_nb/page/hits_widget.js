// `widgets.HitList` in the browser.

import { pictureOf } from './bytes.js';
import { make } from './elements.js';
import { showHits } from './hits.js';

async function cutOut(bytes) {
  const picture = await pictureOf(bytes), canvas = document.createElement('canvas');
  Object.assign(canvas, { width: picture.width, height: picture.height });
  canvas.getContext('2d').drawImage(picture, 0, 0);
  return canvas;
}

function render({ model, el }) {
  const list = make('ol', el);
  let drawing = 0;
  async function redraw() {
    const mine = ++drawing, hits = model.get('hits');
    const pictures = await Promise.all(hits.map(h => cutOut(h.picture)));
    if (mine !== drawing) return;  // there are newer ones
    list.setAttribute('aria-label', model.get('label'));
    showHits(list, hits.map((h, k) => ({ ...h, picture: pictures[k] })));
  }
  model.on('change:hits', redraw);
  redraw();
}

export default { render };
