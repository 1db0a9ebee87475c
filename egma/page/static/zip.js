"use strict";
// Files in one ZIP (PKWARE's APPNOTE 6.3), as they are: pictures are compressed already. Nothing here needs a page.
const egmaZip = (() => {
  const [LOCAL, CENTRAL, END] = [0x04034b50, 0x02014b50, 0x06054b50];
  const [VERSION, UTF8_NAMES] = [20, 0x800];

  const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
    for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
    return byte;
  });
  const crc32 = (bytes) => ~bytes.reduce((sum, byte) => TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8), -1) >>> 0;

  // Numbers of 2 or 4 bytes, [bytes, value] each, the lowest byte first.
  const numbers = (...fields) => Uint8Array.from(fields.flatMap(([size, value]) =>
    Array.from({ length: size }, (_, place) => (value >>> (8 * place)) & 0xff)));

  // `files`: a name and its bytes each; `at`: when they were written.
  function zip(files, at = new Date()) {
    const [parts, listed] = [[], []];
    let next = 0; // where the next file begins
    const time = (at.getHours() << 11) | (at.getMinutes() << 5) | (at.getSeconds() >> 1);
    const day = ((at.getFullYear() - 1980) << 9) | ((at.getMonth() + 1) << 5) | at.getDate();
    for (const [named, bytes] of files) {
      const name = new TextEncoder().encode(named);
      const known = [[2, VERSION], [2, UTF8_NAMES], [2, 0], [2, time], [2, day], [4, crc32(bytes)], [4, bytes.length],
        [4, bytes.length], [2, name.length], [2, 0]];
      const head = numbers([4, LOCAL], ...known);
      listed.push(numbers([4, CENTRAL], [2, VERSION], ...known, [2, 0], [2, 0], [2, 0], [4, 0], [4, next]), name);
      parts.push(head, name, bytes);
      next += head.length + name.length + bytes.length;
    }
    const size = listed.reduce((sum, part) => sum + part.length, 0);
    const end = numbers([4, END], [2, 0], [2, 0], [2, files.length], [2, files.length], [4, size], [4, next], [2, 0]);
    return new Blob([...parts, ...listed, end], { type: "application/zip" });
  }

  return { zip };
})();
