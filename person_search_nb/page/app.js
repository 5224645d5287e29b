// The page: state, three networks, pictures, rankings. Everything runs in the browser.

import { iou } from './boxes.js';
import { distance } from './distance.js';
import { make } from './elements.js';
import { reader, toImage } from './files.js';
import { difference, scaled } from './heat.js';
import { Network } from './network.js';
import { Panel } from './panel.js';
import { rank } from './ranking.js';
import { openWith } from './runtime.js';
import { Sight } from './sight.js';
import { DEFAULTS, fromQuery, toQuery } from './state.js';
import { TOUR } from './tour.js';

const HITS = 10, PAUSE = 60, QUIET = 1000;  // people; ms between networks and before they begin
const MEANING = {
  picture: 'Boxes: people found; point at one for its score.',
  x: 'Bright: the squares of the features in a cell, summed; from lowest to highest of a picture.',
  mean_a: 'Bright: attention A, mean over channels, in each picture from lowest to highest.',
  difference: 'Orange: the teacher has more energy than the student; purple: less. At unit length.'
    + ' Under Teacher: its own energy.',
};
const $ = id => document.getElementById(id);

// # What is loaded
const networks = {}, { runtime } = fromQuery(location.search);
const sight = new Sight(networks);
let data, sheet, state = { ...DEFAULTS };
let image, own = null, seen = {};  // own: a picture of the reader's
let chosen = null;                 // the box of whom we look for
let bytes = 0, work = Promise.resolve(), moves = 0, done = 0, brought = 0, step = 0;

function say(text, bad = false) {
  $('status').textContent = text;
  $('status').classList.toggle('error', bad);
}

async function load() {
  const read = reader(n => {
    bytes += n;
    say(`Loading: ${(bytes / 1e6).toFixed(1)} MB.`);
  });
  data = JSON.parse(new TextDecoder().decode(await read('data.json')));
  sheet = await createImageBitmap(new Blob([await read(data.sheet.file)]));
  $('runtime').textContent = await openWith(runtime, read, async ({ ort, options }) => {
    for (const { name } of data.networks) {
      networks[name] = await Network.open(ort, read, name, options);
      const rows = await read(`${name}.people.bin`);
      networks[name].gallery = new Float32Array(rows.buffer);
    }
  });
  for (const s of data.scenes) s.picture = new Blob([await read(s.file)], { type: 'image/jpeg' });
  $('people').textContent = `${data.people.id.length}`;
  $('megabytes').textContent = (bytes / 1e6).toFixed(0);
}

// # Parts of the page
const panels = {};

function buildPanels() {
  for (const about of data.networks) {
    panels[about.name] = new Panel($('panels'), about, said => choose(about.name, said));
  }
}

// A person of one network. What was asked of people who are no longer there is not done.
async function choose(name, said) {
  await work;
  const panel = panels[name];
  if (said.edition !== panel.shown.edition || done !== moves) panel.picture.answered(true);
  else change({ by: name, person: sure(name)[said.choose] });
}

function buildScenes() {
  data.scenes.forEach((s, i) => {
    const b = make('button', $('scenes'), { type: 'button', title: s.name });
    make('img', b, { src: URL.createObjectURL(s.picture), alt: `scene ${i + 1}` });
    b.onclick = () => { own = null; change({ scene: i, by: 'teacher', person: 0 }); };
  });
}

function connect() {
  for (const id of ['tour', 'save', 'reset']) $(id).disabled = false;
  for (const e of $('controls').elements) {
    if (!e.name) continue;
    e.oninput = () => change({ [e.name]: e.type === 'range' ? Number(e.value) : e.value });
  }
  $('own').onchange = e => {
    if (e.target.files[0]) bring(e.target.files[0]);
    e.target.value = '';  // so that the same file can be chosen again
  };
  addEventListener('dragover', e => { e.preventDefault(); document.body.classList.add('over'); });
  addEventListener('dragleave', () => document.body.classList.remove('over'));
  addEventListener('drop', e => {
    e.preventDefault();
    document.body.classList.remove('over');
    const dropped = [...e.dataTransfer.files];
    const picture = dropped.find(f => f.type.startsWith('image/')) ?? dropped[0];
    if (picture) bring(picture);
  });
  $('save').onclick = save;
  $('reset').onclick = () => { own = null; $('guide').hidden = true; change({ ...DEFAULTS }); };
  $('tour').onclick = () => guide(0);
  $('guide-next').onclick = () => guide(step + 1);
  $('guide-back').onclick = () => guide(Math.max(0, step - 1));
  $('guide-end').onclick = () => guide(-1);
}

function guide(k) {
  step = k;
  $('guide').hidden = !(k in TOUR);
  if (!(k in TOUR)) { $('tour').focus(); return; }
  const [wanted, text] = TOUR[k];
  $('guide-text').textContent = `${k + 1} of ${TOUR.length}. ${text}`;
  $('guide-next').disabled = k === TOUR.length - 1;
  $('guide-back').disabled = k === 0;
  if (document.activeElement?.disabled) $('guide-end').focus();
  own = null;
  change({ ...DEFAULTS, ...wanted });
}

// # State to page
function change(what) {
  if ('scene' in what || 'person' in what) chosen = null;  // else the same person, whatever moves
  Object.assign(state, what);
  showAddress();
  showControls();
  // one thing after another; of several moves that wait only the last is done
  const mine = ++moves;
  work = work.then(() => mine === moves && redraw(mine)).catch(failed).then(() => { done = mine; });
  return work;
}

function failed(error) {
  say(error.message, true);
  for (const panel of Object.values(panels)) panel.picture.answered(false);
}

// Where the person stands whom we look for, if they are nobody in the list that `person` counts in.
function place() {
  if (!chosen || !seen[state.by]) return '';
  const { boxes } = seen[state.by];
  const listed = sure(state.by).some(i => iou(boxes, i, chosen, 0) > 0.5);
  return listed ? '' : [...chosen].map(Math.round).join(',');
}

// Of a picture of one's own an address says nothing: whoever opens it has not got it.
function showAddress() {
  const text = own ? '' : toQuery({ ...state, at: place() }, runtime);
  history.replaceState(null, '', location.pathname + text);
}

function showControls() {
  for (const e of $('controls').elements) {
    if (!e.name) continue;
    e.value = state[e.name];
    if (e.type === 'range') e.previousElementSibling.textContent = state[e.name];
  }
  $('meaning').textContent = MEANING[state.quantity];
  [...$('scenes').children].forEach((b, i) =>
    b.setAttribute('aria-pressed', !own && i === state.scene));
}

async function bring(file) {
  const mine = ++moves;  // a move like any other: what comes later counts
  say(`Reading ${file.name}.`);
  try {
    const picture = await toImage(file, data.scenes[0].width);
    if (mine !== moves) return;
    own = picture;
    brought++;
  } catch {
    if (mine === moves) await change({});  // what it may have interrupted
    say(`${file.name}: not a picture this browser can read`, true);
    return;
  }
  await change({ by: 'teacher', person: 0 });
}

async function redraw(mine) {  // left as soon as there is another move
  const from = performance.now();
  await look();
  if (mine !== moves) return;
  const box = query(), who = identity(box);
  showAddress();
  for (const { name } of data.networks) {
    draw(name, box);
    const hits = await findHits(name, box, who);
    if (mine !== moves) return;
    panels[name].rank(hits);
  }
  setTimeout(after => after === moves && lookAhead(), QUIET, moves);
  say(box ? `Done in ${Math.max(1, Math.round(performance.now() - from))} ms.`
    : 'Nobody is found here: lower the minimum score, or take another scene.');
}

// # What the networks see
async function imageOf(scene) {
  return data.scenes[scene].image ??= await toImage(data.scenes[scene].picture);
}

async function look() {  // state and picture may be others after each `await`
  const names = data.networks.map(n => n.name), { scene, attention } = state, given = own;
  const entry = sight.entry(given ? `own ${brought}` : scene, attention);
  const picture = given || await imageOf(scene);
  if (names.some(name => !entry[name])) say('Looking.');
  for (const name of names) await sight.see(entry, name, picture);
  image = picture;
  seen = entry;
}

// What may be asked next: this picture under other attention, then the other scenes.
function likely() {
  const key = own ? `own ${brought}` : state.scene, here = own;
  const same = ['learned', 'off', 'teacher'].map(attention =>
    ({ key, attention, picture: () => here || imageOf(key) }));
  const others = data.scenes.map((_, i) =>
    ({ key: i, attention: state.attention, picture: () => imageOf(i) }));
  return [...same, ...others];
}

// While nobody moves anything, one network at a time: a move has to wait for no more than that.
async function lookAhead() {
  const mine = moves;
  for (const { key, attention, picture } of likely()) {
    for (const { name } of data.networks) {
      await new Promise(resolve => { setTimeout(resolve, PAUSE); });
      if (mine !== moves) return;
      work = work.then(async () => sight.see(sight.entry(key, attention), name, await picture()))
        .catch(failed);
      await work;
    }
  }
}

function sure(name) {  // numbers of those whom a network finds
  const { scores } = seen[name];
  return [...scores.keys()].filter(i => scores[i] >= state.score);
}

function query() {  // the box of whom we look for
  if (chosen) {  // with other attention the same person may have another number
    const { boxes } = seen[state.by];
    const same = sure(state.by).find(i => iou(boxes, i, chosen, 0) > 0.5);
    if (same !== undefined) state.person = same;
    return chosen;
  }
  const names = [state.by, ...data.networks.map(n => n.name)];
  const name = names.find(n => sure(n).length);
  if (!name) return null;
  const rows = sure(name), i = rows.includes(state.person) ? state.person : rows[0];
  return chosen = seen[name].boxes.slice(4 * i, 4 * i + 4);
}

function identity(box) {  // of the annotation; -1: nobody knows
  if (own || !box) return -1;
  const { boxes, ids } = data.scenes[state.scene], all = Float32Array.from(boxes.flat());
  const overlap = ids.map((_, k) => iou(box, 0, all, k)), best = Math.max(0, ...overlap);
  return best >= 0.5 ? ids[overlap.indexOf(best)] : -1;
}

// # Pictures
function heatOf(name) {
  const j = state.level, { maps } = seen[name], stride = networks[name].about.stride / 4 * 2 ** j;
  const what = state.quantity, minus = what === 'difference' && name !== 'teacher';
  if (what === 'picture') return null;
  const energy = who => seen[who].maps[j].x.data.map(v => v * v);  // x is its root
  const [, h, w] = maps[j].x.dims;
  const values = minus ? difference(energy(name), energy('teacher'))
    : scaled(what === 'mean_a' ? maps[j].mean_a.data : energy(name));
  return { values, shape: [h, w], stride, corner: [0, 0], opacity: state.opacity,
    difference: minus, box: null };
}

function draw(name, box) {
  const { boxes, scores } = seen[name], rows = sure(name);
  const labels = rows.map((i, k) =>
    `person ${k + 1} of ${rows.length}, score ${scores[i].toFixed(2)}: find them`);
  panels[name].show(image, {
    heat: heatOf(name), labels, boxes: rows.map(i => [...boxes.subarray(4 * i, 4 * i + 4)]),
    selected: box ? rows.findIndex(i => iou(boxes, i, box, 0) > 0.5) : -1,
    alt: `${name}: ${MEANING[state.quantity]} ${rows.length} people found`,
    edition: `${seen.number} ${state.score}`,
  }, words(name, rows.length));
}

function words(name, number) {
  const found = `${number} people found. `, j = state.level;
  if (name === 'teacher') return found;
  const map = (who, what) => seen[who].maps[j][what].data;
  const far = (who, what) => distance(map(who, what), map('teacher', what));
  const text = what => {
    const mine = far(name, what), plain = far('plain', what), alone = name === 'plain' || !plain;
    const share = alone ? '' : ` (${(mine / plain).toFixed(2)} of the untaught student’s)`;
    return mine.toExponential(1) + share;
  };
  return `${found}From the teacher, level ${j}: FD ${text('x')}, AD ${text('a')}.`;
}

// # Rankings
async function findHits(name, box, who) {
  const { people } = data, network = networks[name], { features, gains } = seen[name];
  if (!box) return [];
  const here = own ? -1 : state.scene, mine = row => here >= 0 && people.scene[row] === here;
  const { embeddings } = await network.regions(features, box, gains[3]);
  return rank(embeddings, network.gallery, HITS, mine).map(({ row, similarity }, k) => {
    const said = similarity.toFixed(2), right = who < 0 ? null : people.id[row] === who;
    const verdict = right === null ? '' : right ? ', the same person' : ', someone else';
    const alt = `match ${k + 1}, similarity ${said}${verdict}`;
    return { picture: cutOut(row), right, said, alt };
  });
}

function cutOut(row) {
  const { columns, width, height } = data.sheet;
  const canvas = Object.assign(document.createElement('canvas'), { width, height });
  const x = row % columns * width, y = Math.floor(row / columns) * height;
  canvas.getContext('2d').drawImage(sheet, x, y, width, height, 0, 0, width, height);
  return canvas;
}

function save() {  // the pictures side by side, with their boxes
  const [, , h, w] = image.dims, names = data.networks.map(n => n.name);
  const out = document.createElement('canvas'), gap = 8;
  Object.assign(out, { width: names.length * (w + gap) - gap, height: h + 24 });
  const pen = out.getContext('2d');
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, out.width, out.height);
  names.forEach((name, k) => {
    const left = k * (w + gap);
    pen.fillStyle = '#222';
    pen.font = '15px system-ui, sans-serif';
    pen.fillText(panels[name].title, left, 17);
    panels[name].copy(pen, left, 24);
  });
  const a = Object.assign(document.createElement('a'), { download: 'person-search.png' });
  out.toBlob(blob => {
    a.href = URL.createObjectURL(blob);
    a.click();
    URL.revokeObjectURL(a.href);
  });
}

// # Start
try {
  await load();
  const asked = fromQuery(location.search, data.scenes.length);
  state = { ...asked.state, at: '' };
  if (asked.state.at) chosen = Float32Array.from(asked.state.at.split(','), Number);
  buildScenes();
  buildPanels();
  await change({});
  connect();
  if (asked.ignored.length) say(`In the address, ${asked.ignored.join(', ')} means nothing here.`);
} catch (e) { say(e.message, true); }
