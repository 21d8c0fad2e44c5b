// Compiles every .wgsl file of a folder with Tint and prints its complaints. It runs on Dawn's null backend, which
// validates like any other and executes nothing: no device is needed.
const fs = require('fs');
const path = require('path');
const { createRequire } = require('module');
const load = createRequire(path.join(process.env.NODE_PATH, 'x.js'));

async function main() {
  const { create, globals } = load('webgpu');
  Object.assign(globalThis, globals);
  // Kept where the garbage collector cannot take it.
  globalThis.gpu = create(['backend=null']);
  const adapter = await globalThis.gpu.requestAdapter();
  const device = await adapter.requestDevice({ requiredFeatures: ['subgroups'] });
  const folder = process.argv[2];
  const files = fs.readdirSync(folder).filter((name) => name.endsWith('.wgsl')).sort();
  let wrong = 0;
  for (const file of files) {
    device.pushErrorScope('validation');
    const text = fs.readFileSync(path.join(folder, file), 'utf8');
    // Asked for here because naga, which the files are written for, does not know these directives.
    const code = text.includes('@builtin(subgroup_id)') ? `enable subgroups;\nrequires subgroup_id;\n${text}` : text;
    const module = device.createShaderModule({ code });
    const info = await module.getCompilationInfo();
    for (const message of info.messages.filter((message) => message.type === 'error')) {
      wrong += 1;
      console.error(`${file}:${message.lineNum}:${message.linePos}: ${message.message}`);
    }
    // The limits of a pipeline (workgroup memory, bindings) are checked when one is made.
    try {
      await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
    } catch (error) {
      wrong += 1;
      console.error(`${file}: ${error.message.split('\n')[0]}`);
    }
    await device.popErrorScope();
  }
  console.log(`${files.length} shaders, ${wrong} errors`);
  process.exit(wrong === 0 && files.length > 0 ? 0 : 1);
}
main();
