// @ts-check
/** Numbers as files: CSV, and NumPy's npy and npz. No DOM in here. */

/** @typedef {{name: string, values: ArrayLike<number | string | null>}} Column */
/** @typedef {{name: string, shape: number[], values: Float32Array}} Floats */

/**
 * CSV with lines of `# name: value` before its columns, as `pandas.read_csv(file, comment="#")` reads it.
 * @param {[string, string][]} about
 * @param {Column[]} columns
 */
export function csvText(about, columns) {
  const plain = (/** @type {string} */ text) => text.replace(/[\r\n]+/g, " ");
  const cell = (/** @type {number | string | null | undefined} */ value) => {
    if (typeof value === "number") return Number.isFinite(value) ? String(Math.fround(value) === value ? Number(value.toPrecision(7)) : value) : "nan";
    const text = value ?? "";
    return /[",\r\n#]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = [...about.map(([name, value]) => `# ${plain(name)}: ${plain(value)}`), columns.map(({ name }) => cell(name)).join(",")];
  const rows = Math.max(0, ...columns.map(({ values }) => values.length));
  for (let row = 0; row < rows; row++) lines.push(columns.map(({ values }) => cell(values[row])).join(","));
  return `${lines.join("\n")}\n`;
}

/** An npy file: magic, version 1.0, length of the header, the header, the values. @param {string} kind NumPy's `descr` @param {number[]} shape @param {Uint8Array} values */
function npyBytes(kind, shape, values) {
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const header = `{'descr': '${kind}', 'fortran_order': False, 'shape': (${sizes}), }`;
  const padded = `${header.padEnd(64 * Math.ceil((header.length + 11) / 64) - 11)}\n`;
  const bytes = new Uint8Array(10 + padded.length + values.length);
  bytes.set([0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, padded.length & 255, padded.length >> 8]);
  bytes.set(new TextEncoder().encode(padded), 10);
  bytes.set(values, 10 + padded.length);
  return bytes;
}

/** Float32 values as npy. @param {number[]} shape @param {Float32Array} values */
export function npyFloats(shape, values) {
  const bytes = new DataView(new ArrayBuffer(4 * values.length));
  values.forEach((value, i) => bytes.setFloat32(4 * i, value, true));
  return npyBytes("<f4", shape, new Uint8Array(bytes.buffer));
}

/** One text as npy, a string without axes. @param {string} text */
export function npyText(text) {
  const letters = [...text];
  const bytes = new DataView(new ArrayBuffer(4 * Math.max(1, letters.length)));
  letters.forEach((letter, i) => bytes.setUint32(4 * i, letter.codePointAt(0) ?? 0, true));
  return npyBytes(`<U${Math.max(1, letters.length)}`, [], new Uint8Array(bytes.buffer));
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? 0xedb88320 ^ (value >>> 1) : value >>> 1;
  return value;
});

/** @param {Uint8Array} bytes */
export function crc32(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}

/** A zip file whose files are stored as they are, which is what npz is. @param {{name: string, bytes: Uint8Array}[]} files */
export function zipBytes(files) {
  const size = files.reduce((total, { name, bytes }) => total + 76 + 2 * name.length + bytes.length, 22);
  const zip = new Uint8Array(size);
  const view = new DataView(zip.buffer);
  const put = (/** @type {number} */ at, /** @type {[number, number][]} */ ...fields) => {
    for (const [width, value] of fields) {
      if (width === 2) view.setUint16(at, value, true);
      else view.setUint32(at, value, true);
      at += width;
    }
    return at;
  };
  /** @type {number[]} */
  const starts = [];
  let at = 0;
  const common = (/** @type {{name: string, bytes: Uint8Array}} */ { name, bytes }) => /** @type {[number, number][]} */ ([[2, 20], [2, 0], [2, 0], [2, 0], [2, 0x21], [4, crc32(bytes)], [4, bytes.length], [4, bytes.length], [2, name.length], [2, 0]]);
  for (const file of files) {
    starts.push(at);
    at = put(at, [4, 0x04034b50], ...common(file));
    zip.set(new TextEncoder().encode(file.name), at);
    zip.set(file.bytes, at + file.name.length);
    at += file.name.length + file.bytes.length;
  }
  const directory = at;
  files.forEach((file, i) => {
    at = put(at, [4, 0x02014b50], [2, 20], ...common(file), [2, 0], [2, 0], [2, 0], [4, 0], [4, starts[i]]);
    zip.set(new TextEncoder().encode(file.name), at);
    at += file.name.length;
  });
  put(at, [4, 0x06054b50], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, at - directory], [4, directory], [2, 0]);
  return zip;
}

/** Arrays and their description, as `numpy.load` reads them. @param {Floats[]} arrays @param {[string, string][]} about */
export function npzBytes(arrays, about) {
  const files = arrays.map(({ name, shape, values }) => ({ name: `${name}.npy`, bytes: npyFloats(shape, values) }));
  return zipBytes([...files, { name: "about.npy", bytes: npyText(JSON.stringify(Object.fromEntries(about))) }]);
}
