// Gives Node 20 the one function of Node 22 that the conformance suite imports, and does not
// call where it tests a client.
import { register } from 'node:module';

const fs = "export * from 'node:fs'; export { default } from 'node:fs';"
  + " export const globSync = () => [];";
const hooks = `
export async function resolve(specifier, context, next) {
  const ours = specifier === 'fs' && (context.parentURL ?? '').includes('/conformance/dist/');
  if (!ours) return next(specifier, context);
  return { url: 'data:text/javascript,' + encodeURIComponent(${JSON.stringify(fs)}), shortCircuit: true };
}`;
register('data:text/javascript,' + encodeURIComponent(hooks));
