import assert from 'node:assert/strict';
import test from 'node:test';
import { AS_LEARNED, OFF } from '../../person_search_nb/page/network.js';
import { Sight } from '../../person_search_nb/page/sight.js';

// Networks that note what they are asked; the student's maps are half as strong as the teacher's.
function pair() {
  const asked = [], map = v => ({ data: Float32Array.of(v), dims: [1, 1, 1] });
  const network = (name, v) => ({
    look: async () => ({ maps: [v, v, v].map(m => ({ mean_a: map(m) })) }),
    search: async (image, gains) => {
      asked.push([name, image, gains]);
      return { maps: [v, v, v].map(m => ({ mean_a: map(m) })) };
    },
  });
  return [asked, new Sight({ teacher: network('teacher', 1), taught: network('taught', 0.5) })];
}

test('a picture is looked at once by each network, for each kind of attention', async () => {
  const [asked, sight] = pair();
  for (let k = 0; k < 2; k++) {
    const entry = sight.entry(3, 'learned');
    for (const name of ['teacher', 'taught']) await sight.see(entry, name, 'image');
  }
  assert.deepEqual(asked.map(a => a[0]), ['teacher', 'taught']);
  assert.equal(asked[1][2], AS_LEARNED);
  const off = sight.entry(3, 'off');
  await sight.see(off, 'taught', 'image');
  assert.equal(asked[2][2], OFF);
  assert.notEqual(off.number, sight.entry(3, 'learned').number);
});

test('the teacher’s attention makes students’ maps the teacher’s', async () => {
  const [asked, sight] = pair(), entry = sight.entry(0, 'teacher');
  for (const name of ['teacher', 'taught']) await sight.see(entry, name, 'image');
  assert.equal(asked[0][2], AS_LEARNED);
  assert.deepEqual(asked[1][2].slice(0, 3).map(g => g.data[0]), [2, 2, 2]);
});

test('the oldest pictures are forgotten', async () => {
  const [asked, sight] = pair();
  for (let k = 0; k < 100; k++) await sight.see(sight.entry(k, 'learned'), 'teacher', k);
  await sight.see(sight.entry(99, 'learned'), 'teacher', 99);
  assert.equal(asked.length, 100);
  await sight.see(sight.entry(0, 'learned'), 'teacher', 0);
  assert.equal(asked.length, 101);
});
