import assert from 'node:assert/strict';
import test from 'node:test';
import { clip, iou, isLarge, nms, take } from '../../person_search_nb/page/boxes.js';
import { distance, gainLike } from '../../person_search_nb/page/distance.js';
import { rank } from '../../person_search_nb/page/ranking.js';
import { roiAlign } from '../../person_search_nb/page/roi_align.js';

const boxes = new Float32Array([0, 0, 10, 10, 0, 0, 10, 5, 20, 20, 30, 30, 1, 0, 11, 10]);

test('overlap of boxes', () => {
  assert.equal(iou(boxes, 0, boxes, 0), 1);
  assert.equal(iou(boxes, 0, boxes, 1), 0.5);
  assert.equal(iou(boxes, 0, boxes, 2), 0);
  const edge = new Float32Array([10, 0, 20, 10]);
  assert.equal(iou(boxes, 0, edge, 0), 0);
});

test('NMS keeps the better of two, the first of equals, and as many as are wanted', () => {
  const scores = new Float32Array([0.5, 0.9, 0.5, 0.5]);
  assert.deepEqual(nms(boxes, scores, 0.5), [1, 0, 2]);  // 0 and 1 overlap by exactly 0.5
  assert.deepEqual(nms(boxes, scores, 0.4), [1, 2]);  // 3 overlaps with 1 by 0.43
  assert.deepEqual(nms(boxes, scores, 0.5, 2), [1, 0]);
  assert.deepEqual(nms(new Float32Array(0), new Float32Array(0), 0.5), []);
});

test('clipping, size, rows', () => {
  const out = clip(new Float32Array([-3, -4, 50, 60]), 20, 30);
  assert.deepEqual([...out], [0, 0, 30, 20]);
  assert.ok(isLarge(boxes, 1, 5) && !isLarge(boxes, 1, 6));
  assert.deepEqual([...take(boxes, [2, 1])], [20, 20, 30, 30, 0, 0, 10, 5]);
});

test('RoIAlign of a ramp is the ramp, beyond the map it is zero', () => {
  const h = 6, w = 8, data = Float32Array.from({ length: h * w }, (_, k) => k % w);
  const features = { data, dims: [1, 1, h, w] };
  const out = roiAlign(features, new Float32Array([32, 16, 64, 48, 900, 900, 950, 950]), 2, 1 / 16);
  assert.deepEqual(out.dims, [2, 1, 2, 2]);
  assert.deepEqual([...out.data], [2, 3, 2, 3, 0, 0, 0, 0]);
});

test('ranking: falling similarity, ties by row, some left out', () => {
  const gallery = new Float32Array([0, 1, 1, 0, 0.6, 0.8, 1, 0]);
  const order = (most, out) => rank([1, 0], gallery, most, out).map(r => r.row);
  assert.deepEqual(order(), [1, 3, 2, 0]);
  assert.deepEqual(order(2, r => r === 1), [3, 2]);
  assert.equal(rank([1, 0], gallery)[2].similarity, gallery[4]);
});

test('distance: zero for multiples, half of two over the cells for maps that share nothing', () => {
  assert.ok(distance([1, 2, 3, 0], [2, 4, 6, 0]) < 1e-12);
  assert.equal(distance([1, 0, 0, 0], [0, 1, 0, 0]), 0.25);
  assert.throws(() => distance([1, 2], [1]), /2 and 1 cells/);
  const map = values => ({ data: new Float32Array(values), dims: [1, 1, 2] });
  assert.deepEqual([...gainLike(map([1, 3]), map([2, 2])).data], [0.5, 1.5]);
});
