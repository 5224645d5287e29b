// ONNX Runtime, which computes the networks: on the graphics card where the browser offers one by
// WebGPU, else in WebAssembly on one core.

const BUILDS = {
  wasm: { title: 'WebAssembly', script: 'ort.wasm.min.mjs', binary: 'ort-wasm-simd-threaded',
    providers: ['wasm'] },
  webgpu: { title: 'WebGPU', script: 'ort.webgpu.min.mjs',
    binary: 'ort-wasm-simd-threaded.asyncify', providers: ['webgpu', 'wasm'] },
};

// 'webgpu' where there is a card; what only imitates one is slower than WebAssembly
async function best(wanted) {
  try {
    const adapter = await navigator.gpu?.requestAdapter(), info = adapter?.info ?? {};
    const imitated = info.isFallbackAdapter || /swiftshader|llvmpipe/i.test(info.architecture);
    return adapter && (wanted === 'webgpu' || !imitated) ? 'webgpu' : 'wasm';
  } catch { return 'wasm'; }
}

async function start(name, read) {
  const { title, script, binary, providers } = BUILDS[name];
  const ort = await import(`./vendor/${script}`);
  const glue = new URL(`vendor/${binary}.mjs`, location.href);
  Object.assign(ort.env.wasm, { numThreads: 1, wasmPaths: { mjs: glue.href },
    wasmBinary: (await read(`vendor/${binary}.wasm.gz`)).buffer });
  ort.env.logLevel = 'error';  // that shapes are computed on the processor is no news
  return { ort, title, options: { executionProviders: providers } };
}

// wanted: 'wasm', 'webgpu' (if there is a card, even an imitated one), else the best there is;
// read: as in `Network.open`; opens: a function that opens all networks with a runtime. A card on
// which that fails is left.
export async function openWith(wanted, read, opens) {
  const name = wanted === 'wasm' ? wanted : await best(wanted);
  try {
    const runtime = await start(name, read);
    await opens(runtime);
    return runtime.title;
  } catch (error) {
    if (name === 'wasm') throw error;
    return openWith('wasm', read, opens);
  }
}
