import assert from 'node:assert/strict';
import test from 'node:test';
import { difference, scaled, tint } from '../../person_search_nb/page/heat.js';

test('maps go from 0 to 1, differences to -1 or 1', () => {
  assert.deepEqual(scaled([2, 3, 4]), [0, 0.5, 1]);
  assert.deepEqual(scaled([2, 2]), [0, 0]);
  assert.deepEqual(difference([1, 0], [0, 1]), [-1, 1]);
  assert.deepEqual(difference([1, 2], [2, 4]), [0, 0]);
});

test('opacity 0 leaves the grey scene', () => {
  const pixels = { data: Uint8ClampedArray.from([10, 20, 30, 255]), width: 1, height: 1 };
  tint(pixels, [1, 1], { values: [1], shape: [1, 1], stride: 1, corner: [0, 0], opacity: 0,
    difference: false, box: null });
  assert.deepEqual([...pixels.data], [20, 20, 20, 255]);
});
