// Prints as JSON what three.js makes of a glTF file: `node read_with_three.mjs FILE.glb [MORPH RADIANS]`.
// MORPH is set to 1 and the joint "head" turned about y.
import { readFileSync } from 'node:fs';
import * as THREE from 'three';
import { GLTFGaussianSplatLoaderExtension } from 'three/examples/jsm/loaders/GLTFGaussianSplatLoaderExtension.js';
import { GLTFLoader } from 'three/examples/jsm/loaders/GLTFLoader.js';

globalThis.self = globalThis;
globalThis.ProgressEvent = class {};
const [file, morph, radians] = process.argv.slice(2);
const data = readFileSync(file);
const loader = new GLTFLoader();
loader.register((parser) => new GLTFGaussianSplatLoaderExtension(parser));
// Pictures need a browser.
loader.register(() => ({ name: 'no pictures', loadTexture: () => Promise.resolve(new THREE.Texture()) }));
const gltf = await loader.parseAsync(data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength), '');

const attributes = {};
const meshes = [];
gltf.scene.traverse((node) => {
  if (node.isSkinnedMesh) meshes.push(node);
  const splats = node.splatGeometry?.attributes ?? {};
  for (const [name, attribute] of Object.entries(splats)) attributes[name] = Array.from(attribute.array);
});
for (const mesh of meshes) {
  mesh.morphTargetInfluences.fill(0);
  mesh.morphTargetInfluences[mesh.morphTargetDictionary[morph]] = 1;
  mesh.skeleton.bones.find((bone) => bone.name === 'head').rotation.set(0, Number(radians), 0);
}
gltf.scene.updateMatrixWorld(true);
const point = new THREE.Vector3();
const vertices = meshes.map((mesh) =>
  Array.from({ length: mesh.geometry.attributes.position.count }, (_, i) => mesh.getVertexPosition(i, point).toArray()));
const tracks = gltf.animations.map((clip) => clip.tracks.length);
console.log(JSON.stringify({ attributes, vertices, morphs: meshes[0]?.morphTargetDictionary ?? {}, tracks }));
