// `widgets.ScenePicture` in the browser: traits and messages on one side, a picture on the other.

import { numbers, pictureOf } from './bytes.js';
import { ScenePicture } from './scene_picture.js';

const OVER = ['size', 'boxes', 'labels', 'colours', 'selected', 'dragged', 'can_drag', 'can_brush',
  'brush', 'strokes', 'alt', 'label', 'note'];

function render({ model, el }) {
  const shown = new ScenePicture(el, get, choice => model.send(choice));
  let latest = 0, decoding = false;

  function get(name) {
    const value = model.get(name);
    if (name !== 'heat') return value;
    return value.values ? { ...value, values: numbers(value.values) } : null;
  }

  async function repaint() {
    const mine = ++latest;
    decoding = true;
    const picture = await pictureOf(model.get('picture'));
    if (mine !== latest) return;  // there is a newer one
    decoding = false;
    shown.repaint(picture);
  }

  model.on('msg:custom', answer => shown.answered(answer.late));
  model.on('change:picture', repaint);
  model.on('change:heat', () => { if (!decoding) shown.repaint(); });
  model.on('change:edition', () => shown.renumbered());
  for (const k of OVER) model.on(`change:${k}`, () => shown.redraw());
  repaint();
}

export default { render };
