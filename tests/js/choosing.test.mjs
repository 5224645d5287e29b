import assert from 'node:assert/strict';
import test from 'node:test';
import { span, under, walk } from '../../person_search_nb/page/choosing.js';

test('keys lead from person to person, and around', () => {
  assert.equal(walk(['ArrowRight', 'ArrowRight'], 0, 5), 2);
  assert.equal(walk(['ArrowLeft'], 0, 5), 4);
  assert.equal(walk(['ArrowDown', 'End', 'ArrowDown'], 2, 5), 0);
  assert.equal(walk(['ArrowRight'], -1, 5), 0);
  assert.equal(walk(['ArrowUp'], -1, 5), 4);
  assert.equal(walk([], 3, 5), 3);
  assert.equal(walk(['Home'], 3, 5), 0);
});

test('the mouse means the smallest box under it', () => {
  const boxes = [[0, 0, 10, 10], [4, 4, 6, 6], [4, 4, 6, 6]];
  assert.equal(under(boxes, [5, 5]), 1);
  assert.equal(under(boxes, [1, 1]), 0);
  assert.equal(under(boxes, [10, 10]), 0);
  assert.equal(under(boxes, [11, 1]), -1);
  assert.equal(under([], [1, 1]), -1);
});

test('a box is the same, whichever corner came first', () => {
  assert.deepEqual(span([9, 2], [3, 8]), [3, 2, 9, 8]);
  assert.deepEqual(span([3, 8], [9, 2]), [3, 2, 9, 8]);
});
