// Unpacks what the page holds deflated in base 85: first its own script, then the numbers.
const DIGITS = new Uint8Array(128);
for (let code = 35, digit = 0; digit < 85; code++)
  if (!'&<>\\'.includes(String.fromCharCode(code))) DIGITS[code] = digit++;

async function unpack({data, size}) {
  if (!self.DecompressionStream) throw Error('this browser is too old; Chrome 87, Firefox 113 and Safari 16.4 can');
  const words = new DataView(new ArrayBuffer(data.length / 5 * 4));
  for (let at = 0, to = 0; at < data.length; to += 4) {
    let number = 0;
    for (const end = at + 5; at < end; at++) number = number * 85 + DIGITS[data.charCodeAt(at)];
    words.setUint32(to, number);
  }
  const stream = new Blob([new Uint8Array(words.buffer, 0, size)]).stream().pipeThrough(new DecompressionStream('deflate'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A page that cannot be drawn says so.
function fail(error) {
  const text = `This page cannot be drawn: ${error && error.message || error}`;
  document.body.dataset.error = text;
  document.getElementById('status').textContent = text;
  document.querySelector('.hfn').removeAttribute('aria-busy');
}
addEventListener('error', event => fail(event.error || event.message));
addEventListener('unhandledrejection', event => fail(event.reason));

(async () => {
  const script = document.createElement('script');
  script.textContent = new TextDecoder().decode(await unpack(JSON.parse(document.getElementById('code').textContent)));
  // The content security policy runs it only if its hash is the one that was written with the page.
  document.body.append(script);
  await start();
})().catch(fail);
