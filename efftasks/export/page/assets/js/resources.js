// What belongs to the page: files beside it or, in a page of a single file, elements of the page itself.

/**
 * @param {string} name of a file, relative to the page.
 * @returns {Promise<ArrayBuffer>}
 */
export async function readBytes(name) {
  const element = document.getElementById(`file:${name}`);
  if (element) return unpack(element.textContent);
  let response;
  try {
    response = await fetch(name, { cache: "no-cache" }); // asks the server whether a stored copy is still the same
  } catch (error) {
    throw new Error(`${name} could not be read (${error.message}). Is the server still running?`);
  }
  if (!response.ok) throw new Error(`${name} could not be read: the server answered ${response.status}.`);
  return response.arrayBuffer();
}

export async function readJson(name) {
  return JSON.parse(new TextDecoder().decode(await readBytes(name)));
}

/** A module that is not part of the page's own code. */
export async function importModule(name) {
  if (!document.getElementById(`file:${name}`)) return import(new URL(name, document.baseURI).href);
  const url = URL.createObjectURL(new Blob([await readBytes(name)], { type: "text/javascript" }));
  try {
    return await import(url);
  } finally {
    URL.revokeObjectURL(url);
  }
}

/** Base64 of gzip. */
async function unpack(text) {
  const packed = Uint8Array.from(atob(text.trim()), (character) => character.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}
