import assert from 'node:assert/strict';
import test from 'node:test';
import { openAll, RemoteNetwork } from '../../person_search_nb/page/remote_network.js';

// Workers that keep what they are asked, until the test answers.
class FakeWorker {
  static made = [];

  constructor() { Object.assign(this, { asked: [], closed: false }); FakeWorker.made.push(this); }
  postMessage(question) { this.asked.push(question); }
  terminate() { this.closed = true; }
  answer(id, said) { this.onmessage({ data: { id, ...said } }); }
}
globalThis.Worker = FakeWorker;

test('each answer reaches whoever asked, in any order', async () => {
  const network = new RemoteNetwork('plain'), { worker } = network;
  const image = { data: Float32Array.of(1), dims: [1], canvas: 'stays here' };
  const seen = network.search(image, 'gains'), regions = network.regions(7, 'boxes', 'gain');
  assert.deepEqual(worker.asked[0].given, [{ data: image.data, dims: [1] }, 'gains']);
  assert.deepEqual(worker.asked[1].given, [7, 'boxes', 'gain']);
  worker.answer(worker.asked[1].id, { answer: 'who' });
  worker.answer(worker.asked[0].id, { error: 'too small' });
  assert.equal(await regions, 'who');
  await assert.rejects(seen, new Error('too small'));
});

test('a worker that cannot start says so to all who wait', async () => {
  const network = new RemoteNetwork('plain'), seen = [network.open(), network.look({})];
  network.worker.onerror({});
  for (const s of seen) await assert.rejects(s, /a file of this page is missing/i);
});

test('networks open together, or none stays open', async () => {
  const from = FakeWorker.made.length, opened = openAll({ teacher: 'a', plain: 'b' }, 'kit');
  const [teacher, plain] = FakeWorker.made.slice(from);
  assert.deepEqual(plain.asked[0].given, ['b', 'kit']);
  teacher.answer(teacher.asked[0].id, { answer: {} });
  plain.answer(plain.asked[0].id, { error: 'no model' });
  await assert.rejects(opened, /no model/);
  assert.ok(teacher.closed && plain.closed);
});
