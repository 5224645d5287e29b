import assert from 'node:assert/strict';
import test from 'node:test';
import { AS_LEARNED, OFF } from '../../person_search_nb/page/network.js';
import { Sight } from '../../person_search_nb/page/sight.js';

// Networks that note what they are asked; the student's maps are half as strong as the teacher's.
function pair() {
  const asked = [], forgotten = [], map = v => ({ data: Float32Array.of(v), dims: [1, 1, 1] });
  const maps = v => [v, v, v].map(m => ({ mean_a: map(m) }));
  const network = (name, v) => ({
    look: async () => { asked.push([`${name} looks`]); return { maps: maps(v) }; },
    search: async (image, gains) => {
      asked.push([name, image, gains]);
      return { maps: maps(v), features: asked.length };
    },
    forget: features => forgotten.push([name, features]),
  });
  const sight = new Sight({ teacher: network('teacher', 1), taught: network('taught', 0.5) });
  return [asked, sight, forgotten];
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
  await Promise.all(['taught', 'teacher'].map(name => sight.see(entry, name, 'image')));
  assert.deepEqual(asked.map(a => a[0]), ['teacher', ...Array(3).fill('taught looks'), 'taught']);
  assert.equal(asked[0][2], AS_LEARNED);
  assert.deepEqual(asked[4][2].slice(0, 3).map(g => g.data[0]), [2, 2, 2]);
});

test('what was seen with learned attention is not computed again for the teacher’s', async () => {
  const [asked, sight] = pair(), learned = sight.entry(0, 'learned');
  for (const name of ['teacher', 'taught']) await sight.see(learned, name, 'image');
  const entry = sight.entry(0, 'teacher');
  for (const name of ['teacher', 'taught']) await sight.see(entry, name, 'image');
  assert.deepEqual(asked.slice(2).map(a => a[0]), ['taught looks', 'taught looks', 'taught']);
  assert.equal(entry.teacher, learned.teacher);
});

test('a network does one thing after another, and nothing that nobody wants any more', async () => {
  const [asked, sight] = pair();
  let wanted = true;
  const seen = [0, 1, 2].map(k =>
    sight.see(sight.entry(k, 'learned'), 'taught', k, k === 1 ? () => wanted : undefined));
  wanted = false;
  await Promise.all(seen);
  assert.deepEqual(asked.map(a => a.slice(0, 2)), [['taught', 0], ['taught', 2]]);
  assert.equal(sight.entry(1, 'learned').taught, undefined);
});

// Networks that answer when `end` says so; begun: those that are at work.
function held(names, after) {
  const begun = [], end = {};
  const map = { data: Float32Array.of(1), dims: [1, 1, 1] }, maps = Array(3).fill({ mean_a: map });
  const network = name => ({ look: async () => ({ maps }), search: () => new Promise(done => {
    begun.push(name);
    end[name] = () => done({ maps });
  }) });
  const networks = Object.fromEntries(names.map(name => [name, network(name)]));
  return [begun, end, new Sight(networks, after)];
}
const soon = () => new Promise(done => { setTimeout(done, 5); });

test('a network may have its turn after another one, and goes on if that fails', async () => {
  const names = ['teacher', 'taught', 'plain'];
  const [begun, end, sight] = held(names, { plain: 'taught' });
  const see = entry => names.map(name => sight.see(entry, name, 'image'));
  const seen = see(sight.entry(0, 'learned'));
  await soon();
  assert.deepEqual(begun, ['teacher', 'taught']);
  end.taught();
  await soon();
  assert.deepEqual(begun, names);
  for (const name of names) end[name]();
  await Promise.all(seen);
  sight.networks.taught.search = async () => { throw new Error('too small'); };
  const next = see(sight.entry(1, 'learned'));
  await assert.rejects(next[1], /too small/);
  await soon();
  assert.deepEqual(begun, [...names, 'teacher', 'plain']);
});

test('students look side by side where the teacher has nothing to do', async () => {
  const names = ['teacher', 'taught', 'plain'];
  const [begun, end, sight] = held(names, { plain: 'taught' }), learned = sight.entry(0, 'learned');
  const teacher = sight.see(learned, 'teacher', 'image');
  await soon();
  end.teacher();
  await teacher;
  for (const name of ['taught', 'plain']) sight.see(sight.entry(0, 'teacher'), name, 'image');
  await soon();
  assert.deepEqual(begun.toSorted(), names.toSorted());
});

test('after a failure the next picture is looked at', async () => {
  const [, sight] = pair(), { search } = sight.networks.taught, entry = sight.entry(0, 'learned');
  sight.networks.taught.search = async () => { throw new Error('too small'); };
  await assert.rejects(sight.see(entry, 'taught', 'image'), /too small/);
  sight.networks.taught.search = search;
  await sight.see(entry, 'taught', 'image');
  assert.ok(entry.taught);
});

test('the oldest pictures are forgotten, here and by the networks', async () => {
  const [asked, sight, forgotten] = pair();
  for (let k = 0; k < 100; k++) await sight.see(sight.entry(k, 'learned'), 'teacher', k);
  await sight.see(sight.entry(99, 'learned'), 'teacher', 99);
  assert.equal(asked.length, 100);
  assert.deepEqual(forgotten, Array.from({ length: 52 }, (_, k) => ['teacher', k + 1]));
  await sight.see(sight.entry(0, 'learned'), 'teacher', 0);
  assert.equal(asked.length, 101);
});

test('what the teacher sees with both kinds of attention is kept as long as one is', async () => {
  const [, sight, forgotten] = pair(), entry = sight.entry(0, 'teacher');
  await sight.see(entry, 'teacher', 'image');
  for (let k = 1; k < 48; k++) { sight.entry(k, 'learned'); sight.entry(0, 'teacher'); }
  assert.equal(sight.kept.has('0 learned'), false);
  assert.deepEqual(forgotten, []);
  for (let k = 1; k <= 48; k++) sight.entry(-k, 'learned');
  assert.deepEqual(forgotten, [['teacher', 1]]);
});
