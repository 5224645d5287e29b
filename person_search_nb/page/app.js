// The page: state, three networks, pictures, rankings. Everything runs in the browser.

import { iou } from './boxes.js';
import { distance } from './distance.js';
import { make } from './elements.js';
import { inFile, reader, toImage } from './files.js';
import { difference, scaled } from './heat.js';
import { filesOf } from './network.js';
import { Panel } from './panel.js';
import { rank } from './ranking.js';
import { openAll } from './remote_network.js';
import { openWith } from './runtime.js';
import { Sight } from './sight.js';
import { DEFAULTS, fromQuery, toQuery } from './state.js';
import { TOUR } from './tour.js';

const HITS = 10, QUIET = 150;  // people; ms before anything is computed ahead
const MEANING = {
  picture: 'Boxes: people found. Click one to look for this person; below are the most similar '
    + 'ones, in drawn scenes with ✓ for the same person and ✗ for someone else.',
  x: 'Bright: the squares of the features in a cell, summed; from lowest to highest of a picture.',
  mean_a: 'Bright: attention A, mean over channels, in each picture from lowest to highest.',
  difference: 'Orange: the teacher has more energy than the student; purple: less. At unit length.'
    + ' Under Teacher: its own energy.',
};
const ALT = { picture: 'picture', x: 'feature energy', mean_a: 'attention',
  difference: 'teacher minus student' };  // for those who cannot see it
const $ = id => document.getElementById(id);

// # What is loaded
const networks = {}, galleries = {}, { runtime } = fromQuery(location.search);
const few = navigator.hardwareConcurrency < 3;
const sight = new Sight(networks, few ? { plain: 'taught' } : {});
let data, names, sheet, state = { ...DEFAULTS };  // names: of the networks
const pictures = new Map();  // key -> a picture that the reader has brought: { key, name, picture }
let image, own = null, seen = {};  // own: one of `pictures`; seen: an entry of `sight`
let chosen = null;                 // the box of whom we look for
let pointed = -1, rounds = 0, timer;  // the scene that is pointed at; of `lookAhead`
let bytes = 0, work = Promise.resolve(), moves = 0, done = 0, step = 0;

function say(text, bad = false) {
  $('status').textContent = text;
  $('status').classList.toggle('error', bad);
}

async function load() {
  const expected = $('megabytes').textContent;
  const read = reader(n => {
    bytes += n;  // also while others still come after one has failed
    if ($('status').classList.contains('error')) return;
    say(`Loading: ${(bytes / 1e6).toFixed(1)} of ${expected} MB.`);
  });
  const described = new TextDecoder().decode(await read('data.json'));
  data = await inFile('data.json', () => JSON.parse(described));
  names = data.networks.map(n => n.name);
  const files = {};
  for (const name of names) files[name] = await filesOf(name, read);
  const opened = openWith(runtime, read, async kit => {
    Object.assign(networks, await openAll(files, kit));
  });
  // while they open
  await Promise.all([opened.then(title => { $('runtime').textContent = title; }), rest(read)]);
  $('people').textContent = `${data.people.id.length}`;
  $('megabytes').textContent = (downloaded() / 1e6).toFixed(0);
}

// bytes on their way: what a server has packed is larger here
function downloaded() {
  const files = performance.getEntriesByType('resource');
  return files.reduce((sum, file) => sum + (file.encodedBodySize ?? 0), 0) || bytes;
}

async function galleryOf(name, read) {
  const file = `${name}.people.bin`, { buffer } = await read(file), people = data.people.id.length;
  return inFile(file, () => {
    if (buffer.byteLength !== 4 * people * data.networks.find(n => n.name === name).dim)
      throw new Error(`${buffer.byteLength} bytes are not ${people} people`);
    return new Float32Array(buffer);
  });
}

async function rest(read) {  // what needs no network
  for (const name of names) galleries[name] = await galleryOf(name, read);
  const { file } = data.sheet, packed = new Blob([await read(file)]);
  sheet = await inFile(file, () => createImageBitmap(packed));
  for (const s of data.scenes) s.picture = new Blob([await read(s.file)], { type: 'image/jpeg' });
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
  const { picture, shown } = panels[name];
  if (said.edition !== shown.edition || done !== moves) picture.answered(true);
  else if (!seen[name]) picture.answered(false);  // this network has failed
  else change({ by: name, person: sure(name)[said.choose] });
}

function buildScenes() {
  data.scenes.forEach((s, i) => {
    const b = make('button', $('scenes'), { type: 'button' });
    make('img', b, { src: URL.createObjectURL(s.picture), alt: `scene ${i + 1}` });
    b.onclick = () => { own = null; change({ scene: i, by: 'teacher', person: 0 }); };
    b.onpointerenter = b.onfocus = () => foresee(i);
    b.onpointerleave = b.onblur = () => { pointed = -1; whenQuiet(); };
  });
}

function connect() {
  for (const id of ['tour', 'save', 'reset']) $(id).disabled = false;
  $('controls').firstElementChild.disabled = false;
  for (const e of $('controls').elements) {
    if (!e.name) continue;
    const slides = e.type === 'range';  // through many values, to which no one goes back
    e.oninput = () => change({ [e.name]: slides ? Number(e.value) : e.value }, { back: !slides });
  }
  $('own').onchange = e => {
    if (e.target.files[0]) bring(e.target.files[0]);
    e.target.value = '';  // so that the same file can be chosen again
  };
  addEventListener('dragover', () => document.body.classList.add('over'));
  addEventListener('dragleave', () => document.body.classList.remove('over'));
  addEventListener('drop', e => {
    document.body.classList.remove('over');
    const dropped = [...e.dataTransfer.files];
    const picture = dropped.find(f => f.type.startsWith('image/')) ?? dropped[0];
    if (picture) bring(picture);
    else say('Only a picture in a file can be dropped here.', true);
  });
  addEventListener('popstate', goBack);
  addEventListener('keydown', e => {
    if (e.key === 'Escape' && !$('guide').hidden) guide(-1);
  });
  $('save').onclick = save;
  $('reset').onclick = () => { own = null; $('guide').hidden = true; change({ ...DEFAULTS }); };
  $('tour').onclick = () => guide(0);
  $('guide-next').onclick = () => guide(step + 1);
  $('guide-back').onclick = () => guide(Math.max(0, step - 1));
  $('guide-end').onclick = () => guide(-1);
}

function guide(k) {
  const starts = $('guide').hidden;
  step = k;
  $('guide').hidden = !(k in TOUR);
  if (!(k in TOUR)) { $('tour').focus(); return; }
  const [wanted, text, whose = 'teacher'] = TOUR[k];
  const focus = document.activeElement;  // a button that is disabled loses it
  $('guide-text').textContent = `${k + 1} of ${TOUR.length}. ${text}`;
  $('guide-next').disabled = k === TOUR.length - 1;
  $('guide-back').disabled = k === 0;
  if (starts) $('guide-next').focus();
  if (focus.disabled) $('guide-end').focus();
  panels[whose].root.scrollIntoView();  // on a phone they stand one below the other
  own = null;
  change({ ...DEFAULTS, ...wanted }, { back: starts });
}

// # State to page
// box: where the person stands whom we look for, if known; back: whether the button Back of the
// browser is to lead to what was shown before
function change(what, { box = null, back = true } = {}) {
  if ('scene' in what || 'person' in what) chosen = box;  // else the same person, whatever moves
  Object.assign(state, what);
  pointed = -1;
  showAddress(back);
  showControls();
  return work = answer(++moves);
}

async function answer(mine) {  // left as soon as there is another move
  try { await redraw(mine); } catch (error) {
    if (mine !== moves) return;
    say(error.message, true);
    for (const panel of Object.values(panels)) panel.settle();
  }
  if (mine === moves) done = mine;
}

// Where the person stands whom we look for, if they are nobody in the list that `person` counts in.
function place() {
  if (!chosen || !seen[state.by]) return '';
  const listed = sure(state.by).some(i => isAt(state.by, i, chosen));
  return listed ? '' : [...chosen].map(Math.round).join(',');
}

// Of a picture of one's own an address says nothing: whoever opens it has not got it. The browser's
// history, which is this visitor's, keeps the state of that, too.
function showAddress(back = false) {
  const text = toQuery({ ...state, at: place() }, runtime), key = own?.key, before = history.state;
  const other = text !== before?.text || key !== before?.key;
  const address = location.pathname + (own ? '' : text);
  history[back && other ? 'pushState' : 'replaceState']({ key, text }, '', address);
}

function goBack({ state: entry }) {  // or forward
  const asked = fromQuery(entry?.text ?? location.search, data.scenes.length);
  own = pictures.get(entry?.key) ?? null;
  $('guide').hidden = true;
  change({ ...asked.state, at: '' }, { box: boxIn(asked), back: false });
}

function showControls() {
  for (const e of $('controls').elements) {
    if (!e.name) continue;
    e.value = state[e.name];
    if (e.type === 'range') e.previousElementSibling.textContent = state[e.name];
  }
  // of what lies over the picture
  $('controls').elements.opacity.disabled = state.quantity === 'picture';
  $('meaning').textContent = MEANING[state.quantity];
  $('own-name').textContent = own ? `Your picture: ${own.name}` : 'Your picture, or drop one';
  [...$('scenes').children].forEach((b, i) =>
    b.setAttribute('aria-pressed', !own && i === state.scene));
}

function bring(file) { work = receive(file, ++moves); }  // a move: what comes later counts

async function receive(file, mine) {
  say(`Reading ${file.name}.`);
  try {
    const picture = await toImage(file, data.scenes[0].width);
    if (mine !== moves) return;
    const key = `own ${performance.timeOrigin} ${pictures.size}`;  // of this visit alone
    pictures.set(key, own = { key, name: file.name, picture });
  } catch {
    if (mine === moves) await change({}, { back: false });  // what it may have interrupted
    say(`${file.name}: not a picture this browser can read`, true);
    return;
  }
  await change({ by: 'teacher', person: 0 });
}

async function redraw(mine) {
  const from = performance.now(), here = subject(), picture = await here.picture();
  if (mine !== moves) return;
  image = picture;
  seen = sight.entry(here.key, state.attention);
  const missing = names.filter(name => !seen[name]);
  for (const name of missing) panels[name].wait();
  if (missing.length) say('Looking.');
  const answers = ask(seen, picture, () => mine === moves), box = query(answers, mine);
  await Promise.all([box, ...names.map(name => show(name, answers, box, mine))]);
  if (mine !== moves) return;
  renumber();
  showAddress();
  for (const name of names) panels[name].say(words(name));
  whenQuiet();
  say(await box ? `Done in ${Math.max(1, Math.round(performance.now() - from))} ms.`
    : 'Nobody is found here: lower the minimum score, or take another scene.');
}

// One network's panel, as soon as what it shows is known.
async function show(name, answers, box, mine) {
  await answers[name];
  if (state.quantity === 'difference') await answers.teacher;
  if (mine !== moves) return;
  draw(name);
  const whom = await box;
  if (mine !== moves) return;
  panels[name].select(whom ? sure(name).findIndex(i => isAt(name, i, whom)) : -1);
  const hits = await findHits(name, whom);
  if (mine === moves) panels[name].rank(hits);
}

// # What the networks see
async function imageOf(scene) {
  return data.scenes[scene].image ??= await toImage(data.scenes[scene].picture);
}

function subject(scene = state.scene, given = own) {  // a picture of the reader's, or a scene
  return given ? { key: given.key, picture: async () => given.picture }
    : { key: scene, picture: () => imageOf(scene) };
}

// name -> a promise that this network has filled in the entry, or that it is no longer wanted
function ask(entry, picture, wanted) {
  return Object.fromEntries(names.map(name => [name, sight.see(entry, name, picture, wanted)]));
}

// What may be asked next: this picture under other attention, then the other scenes.
function likely() {
  const same = ['learned', 'off', 'teacher'].map(attention => ({ attention, ...subject() }));
  const others = data.scenes.map((_, i) => ({ attention: state.attention, ...subject(i, null) }));
  return [...same, ...others];
}

function whenQuiet() {
  clearTimeout(timer);
  timer = setTimeout(after => after === moves && done === moves && lookAhead(), QUIET, moves);
}

// While nobody moves or points. A move waits at most until its network has seen one picture.
async function lookAhead() {
  const mine = moves, round = ++rounds;
  const wanted = () => mine === moves && round === rounds && pointed < 0;
  try {
    for (const { key, attention, picture } of likely()) {
      const given = await picture();
      if (!wanted()) return;
      await Promise.all(Object.values(ask(sight.entry(key, attention), given, wanted)));
    }
  } catch { /* whoever asks for it is told */ }
}

// Between pointing at a scene and clicking it there is time to look at it.
async function foresee(scene) {
  pointed = scene;
  const { key, picture } = subject(scene, null), wanted = () => pointed === scene;
  try {
    const given = await picture();
    await Promise.all(Object.values(ask(sight.entry(key, state.attention), given, wanted)));
  } catch { /* whoever clicks it is told */ }
}

function sure(name) {  // numbers of those whom a network finds
  const { scores } = seen[name];
  return [...scores.keys()].filter(i => scores[i] >= state.score);
}

function isAt(name, i, box) { return iou(seen[name].boxes, i, box, 0) > 0.5; }

// The box of whom we look for, once a network has answered that finds someone; null: nobody.
async function query(answers, mine) {
  if (chosen) return chosen;
  for (const name of [state.by, ...names]) {
    await answers[name];
    if (mine !== moves) return null;
    const rows = sure(name), i = rows.includes(state.person) ? state.person : rows[0];
    if (rows.length) return chosen = seen[name].boxes.slice(4 * i, 4 * i + 4);
  }
  return null;
}

function renumber() {  // with other attention the same person may have another number
  const same = chosen ? sure(state.by).find(i => isAt(state.by, i, chosen)) : undefined;
  if (same !== undefined) state.person = same;
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

function draw(name) {
  const { boxes, scores } = seen[name], rows = sure(name);
  const labels = rows.map((i, k) =>
    `person ${k + 1} of ${rows.length}, score ${scores[i].toFixed(2)}: find them`);
  panels[name].show(image, {
    heat: heatOf(name), labels, boxes: rows.map(i => [...boxes.subarray(4 * i, 4 * i + 4)]),
    alt: `${panels[name].title}, ${ALT[state.quantity]}: ${rows.length} people found`,
    edition: `${seen.number} ${state.score}`,
  });
  panels[name].say(words(name));
}

function words(name) {
  const found = `${sure(name).length} people found. `, j = state.level;
  if (name === 'teacher' || !seen.teacher || !seen.plain) return found;
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
async function findHits(name, box) {
  if (!box) return [];
  const { people } = data, { features, gains } = seen[name], who = identity(box);
  const here = own ? -1 : state.scene, mine = row => here >= 0 && people.scene[row] === here;
  const { embeddings } = await networks[name].regions(features, box, gains[3]);
  return rank(embeddings, galleries[name], HITS, mine).map(({ row, similarity }, k) => {
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

async function save() {  // the pictures side by side, with their boxes
  await work;
  const [, , h, w] = image.dims, out = document.createElement('canvas'), gap = 8;
  const column = Math.max(w, 200) + gap;  // of a narrow picture: as wide as the titles
  Object.assign(out, { width: names.length * column - gap, height: h + 24 });
  const pen = out.getContext('2d');
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, out.width, out.height);
  names.forEach((name, k) => {
    const left = k * column;
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
// The box that an address names, if it lies in the scene.
function boxIn({ state: { at, scene }, ignored }) {
  if (!at) return null;
  const box = Float32Array.from(at.split(','), Number), { width, height } = data.scenes[scene];
  if (box[2] <= width && box[3] <= height) return box;
  ignored.push('at');
  return null;
}

function sayIgnored({ state: { person, at }, ignored }) {  // what an address says in vain
  const nobody = person > 0 && !at && !sure(state.by).includes(person);
  const vain = [...new Set(nobody ? [...ignored, 'person'] : ignored)].map(v => v.slice(0, 30));
  const verb = vain.length > 1 ? 'mean' : 'means';
  if (vain.length) say(`In the address, ${vain.join(', ')} ${verb} nothing here.`);
}

// What is dropped opens here, or nowhere.
for (const what of ['dragover', 'drop']) addEventListener(what, e => e.preventDefault());

try {
  await load();
  const asked = fromQuery(location.search, data.scenes.length);
  state = { ...asked.state, at: '' };
  chosen = boxIn(asked);
  buildScenes();
  buildPanels();
  await change({}, { back: false });
  connect();
  if (!$('status').classList.contains('error')) sayIgnored(asked);
} catch (e) { say(e.message, true); }
