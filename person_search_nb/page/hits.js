// A ranking as a row of people cut out of their scenes, the most similar first.

import { make } from './elements.js';

const SIGN = { true: '✓ ', false: '✗ ' };

// list: an <ol>; hits: { picture: an element, right: true, false, or null where nobody knows,
// said: a short text, moved: another one or '', alt: for those who cannot see it }
export function showHits(list, hits) {
  list.classList.add('psnb-hits');
  list.replaceChildren();
  for (const { picture, right, said, moved, alt } of hits) {
    const kind = right === null ? '' : right ? 'psnb-right' : 'psnb-wrong';
    const item = make('li', list, { className: kind });
    item.append(picture);
    item.setAttribute('aria-label', alt);
    make('span', item, { textContent: (SIGN[right] ?? '') + said });
    if (moved) make('span', item, { textContent: moved, className: 'psnb-moved' });
  }
}
