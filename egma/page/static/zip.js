"use strict";
// Files in one ZIP (PKWARE's APPNOTE 6.3), as they are: pictures are compressed already. Nothing here needs a page.
const egmaZip = (() => {
  const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
    for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
    return byte;
  });
  const crc32 = (bytes) => ~bytes.reduce((sum, byte) => TABLE[(sum ^ byte) & 0xff] ^ (sum >>> 8), -1);
  // Of 2 or 4 bytes each, the lowest byte first.
  const numbers = (bytes, ...values) =>
    Uint8Array.from(values.flatMap((value) => Array.from({ length: bytes }, (_, place) => value >>> (8 * place))));

  // `files`: bytes by their names; `at`: when they were written.
  return (files, at = new Date()) => {
    const [local, central] = [[], []];
    const time = (at.getHours() << 11) | (at.getMinutes() << 5) | (at.getSeconds() >> 1);
    const day = ((at.getFullYear() - 1980) << 9) | ((at.getMonth() + 1) << 5) | at.getDate();
    let next = 0;
    for (const [title, bytes] of files) {
      const name = new TextEncoder().encode(title);
      const known = [numbers(2, 20, 0x800, 0, time, day), numbers(4, crc32(bytes), bytes.length, bytes.length), numbers(2, name.length, 0)];
      local.push(numbers(4, 0x04034b50), ...known, name, bytes);
      central.push(numbers(4, 0x02014b50), numbers(2, 20), ...known, numbers(2, 0, 0, 0), numbers(4, 0, next), name);
      next += 30 + name.length + bytes.length;
    }
    const size = central.reduce((sum, part) => sum + part.length, 0);
    const end = [numbers(4, 0x06054b50), numbers(2, 0, 0, files.size, files.size), numbers(4, size, next), numbers(2, 0)];
    return new Blob([...local, ...central, ...end], { type: "application/zip" });
  };
})();
