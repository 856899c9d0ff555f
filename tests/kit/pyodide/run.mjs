// Imports every module of the package under -W error, and runs the tests that need no thread, no
// socket and no process, in npm's pyodide: the CPython 3.14 and 3.15 that can be had everywhere.
//
//   node run.mjs <folder of the npm package> <checkout> <folder of wheels> <python file>
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import path from 'node:path';

const [folder, checkout, wheels, program] = process.argv.slice(2).map((one) => path.resolve(one));
const { loadPyodide } = await import(pathToFileURL(path.join(folder, 'pyodide.mjs')));
const pyodide = await loadPyodide({ indexURL: folder, env: { HOME: '/tmp' } });
for (const [name, root] of [['checkout', checkout], ['wheels', wheels], ['program', path.dirname(program)]]) {
  pyodide.FS.mkdir(`/${name}`);
  pyodide.FS.mount(pyodide.FS.filesystems.NODEFS, { root }, `/${name}`);
}
const code = await pyodide.runPythonAsync(
  `import runpy\nruntime = runpy.run_path("/program/${path.basename(program)}")\nruntime["main"]()`,
);
process.exit(code);
