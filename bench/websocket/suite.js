// WebSockets through Isthmus as without it: every case is played straight to the
// server first, and what both sides have seen then has to be the same on every way
// through the proxies. Usage: node suite.js BINARY

import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import {once} from 'node:events';
import http from 'node:http';
import {WebSocket, WebSocketServer} from 'ws';
import {maxPayload, overHTTP1, start} from './ways.js';

const hash = (b) => crypto.createHash('sha256').update(b).digest('hex').slice(0, 16);
const tell = (b, binary) => (b.length > 64 ? `${b.length} bytes ${hash(b)}` : binary ? b.toString('hex') : b.toString());

// server echoes messages, does what those that begin with "/" say, and keeps what it
// has seen of each WebSocket, by its path.
const seen = new Map();

function serve(ws, request) {
  const at = request.url;
  const note = (s) => seen.get(at).push(s);
  seen.set(at, []);
  ws.on('ping', (b) => note(`ping ${b}`));
  ws.on('pong', (b) => note(`pong ${b}`));
  ws.on('error', (e) => note(`error ${e.code}`));
  ws.on('close', (code, reason) => {
    note(`close ${code} ${reason}`);
    closed.get(at)?.();
  });
  ws.on('message', async (b, binary) => {
    note(`message ${tell(b, binary)}`);
    const [order, ...words] = binary || b.length > 64 ? [] : b.toString().split(' ');
    switch (order) {
      case '/close': ws.close(Number(words[0]), words[1]); break;
      case '/terminate': ws._socket.resetAndDestroy(); break;
      case '/ping': ws.ping(words[0]); break;
      case '/parts':
        for (const [i, w] of words.entries()) {
          ws.send(w, {fin: i === words.length - 1});
          ws.ping(`${i}`);
        }
        break;
      case '/garbage': ws._socket.write(Buffer.from([0x83, 0x00])); break;
      default: ws.send(b, {binary});
    }
  });
}

const closed = new Map();
const serverClosed = (at) => new Promise((done) => closed.set(at, done));

// client is a WebSocket and what it has seen, to be awaited in order.
async function client(open, at, options) {
  const events = [];
  const waiting = [];
  const note = (s) => { events.push(s); waiting.shift()?.(); };
  const ws = open(at, options);
  ws.on('error', (e) => ws.readyState !== WebSocket.CLOSED && e.code?.startsWith('WS_') && note(`error ${e.code}`));
  ws.on('ping', (b) => note(`ping ${b}`));
  ws.on('pong', (b) => note(`pong ${b}`));
  ws.on('message', (b, binary) => note(`message ${tell(b, binary)}`));
  ws.on('close', (code, reason) => note(`close ${code} ${reason}`));
  let taken = 0;
  const next = async () => {
    if (events.length === taken) await new Promise((done) => waiting.push(done));
    return events[taken++];
  };
  await once(ws, 'open');
  return {ws, next, at};
}

// end closes in order, and returns what the server has seen of all.
async function end(c) {
  const gone = serverClosed(c.at);
  c.ws.close(1000, 'done');
  const last = await c.next();
  await gone;
  return [last, ...seen.get(c.at)];
}

const text = (n) => 'isthmus '.repeat(Math.ceil(n / 8)).slice(0, n);

async function echo(open, at, options, messages) {
  const c = await client(open, at, options);
  const got = [];
  for (const m of messages) {
    c.ws.send(m);
    got.push(await c.next());
  }
  return [c.ws.extensions, ...got, ...await end(c)];
}

// cases are played with a way to open WebSockets and a path of their own. They
// return all that was seen.
const cases = {
  'text and binary of every length': (open, at) => echo(open, at, {}, [0, 1, 125, 126, 127, 65535, 65536, 200_000].flatMap((n) => [text(n), Buffer.alloc(n, 'xyz')])),
  '16 MiB': (open, at) => echo(open, at, {}, [crypto.createHash('sha512').update('16').digest().toString('hex').repeat(1 << 17)]),
  '16 MiB, binary': (open, at) => echo(open, at, {}, [Buffer.alloc(16 << 20, 'binary\0\xff')]),
  'permessage-deflate': (open, at) => echo(open, at, {deflate: true}, [text(5), text(100_000), Buffer.alloc(1 << 20), Buffer.from('\0\xff')]),
  async 'text that is not ASCII'(open, at) { return echo(open, at, {}, ['Ünïcode ☃ 𝄞', '\u0000']); },
  async fragments(open, at) {
    const c = await client(open, at);
    for (const [i, part] of ['one ', '', 'two ', 'three'].entries()) c.ws.send(part, {fin: i === 3});
    const got = [await c.next()];
    for (let i = 0; i < 1000; i++) c.ws.send(Buffer.from([i & 255]), {fin: i === 999});
    return [...got, await c.next(), ...await end(c)];
  },
  async 'control frames between fragments'(open, at) {
    const c = await client(open, at);
    c.ws.send('one ', {fin: false});
    c.ws.ping('a');
    const got = [await c.next()];
    c.ws.pong('unasked');
    c.ws.send('two ', {fin: false});
    c.ws.ping('b');
    got.push(await c.next());
    c.ws.send('three', {fin: true});
    return [...got, await c.next(), ...await end(c)];
  },
  async 'fragments from the server'(open, at) {
    const c = await client(open, at);
    c.ws.send('/parts a b c d');
    const got = [];
    for (let i = 0; i < 5; i++) got.push(await c.next());
    const rest = await end(c);
    return [...got.sort(), ...rest.sort()]; // its last ping and the message may change places
  },
  async 'pings both ways'(open, at) {
    const c = await client(open, at);
    const got = [];
    for (const payload of ['', 'x', text(125)]) {
      c.ws.ping(payload);
      got.push(await c.next());
    }
    c.ws.send('/ping hello');
    return [...got, await c.next(), ...await end(c)];
  },
  async subprotocols(open, at) {
    const c = await client(open, at, {protocols: ['chat', 'superchat']});
    return [c.ws.protocol, ...await end(c)];
  },
  async 'bytes in both directions at once'(open, at) {
    const c = await client(open, at);
    const n = 300;
    for (let i = 0; i < n; i++) c.ws.send(text(i * 100));
    const got = [];
    for (let i = 0; i < n; i++) got.push(await c.next());
    return [...got, ...await end(c)];
  },
  async 'a client that reads late'(open, at) {
    const c = await client(open, at);
    c.ws.pause();
    for (let i = 0; i < 64; i++) c.ws.send(text(256 << 10));
    await new Promise((done) => setTimeout(done, 200));
    c.ws.resume();
    const got = [];
    for (let i = 0; i < 64; i++) got.push(await c.next());
    return [...got, ...await end(c)];
  },
  async 'a refusal'(open, at) {
    const ws = open(`/refused${at}`);
    ws.on('error', () => {});
    const [, reply] = await once(ws, 'unexpected-response');
    return [reply.statusCode];
  },
  async 'two hundred at a time'(open, at) {
    const one = async (i) => {
      const c = await client(open, `${at}/${i}`);
      for (let k = 0; k < 20; k++) {
        const m = `${i} ${k}`;
        c.ws.send(m);
        assert.equal(await c.next(), `message ${m}`);
      }
      return (await end(c)).length;
    };
    return Promise.all(Array.from({length: 200}, (_, i) => one(i)));
  },
  async 'the client goes without a word'(open, at) {
    const c = await client(open, at);
    c.ws.send('hello');
    await c.next();
    const gone = serverClosed(at);
    c.ws.terminate();
    await gone;
    return seen.get(at).filter((s) => !s.startsWith('error')); // a reset may be told besides
  },
  async 'the server goes without a word'(open, at) {
    const c = await client(open, at);
    c.ws.send('/terminate');
    return [await c.next()];
  },
  async 'a frame that is none, from the client'(open, at) {
    const c = await client(open, at);
    const gone = serverClosed(at);
    c.ws._socket.write(Buffer.from([0x83, 0x80, 0, 0, 0, 0]));
    const got = await c.next();
    await gone;
    return [got, ...seen.get(at)];
  },
  async 'a frame without a mask, from the client'(open, at) {
    const c = await client(open, at);
    const gone = serverClosed(at);
    c.ws._socket.write(Buffer.from([0x81, 0x01, 0x61]));
    const got = await c.next();
    await gone;
    return [got, ...seen.get(at)];
  },
  async 'a frame that is none, from the server'(open, at) {
    const c = await client(open, at);
    const gone = serverClosed(at);
    c.ws.send('/garbage');
    const got = [await c.next()];
    await gone;
    return [...got, seen.get(at).at(-1)];
  },
};

for (const [code, reason] of [[1000, 'bye'], [1001, ''], [1003, 'no'], [1011, text(123)], [3000, 'x'], [4999, 'ünd']]) {
  cases[`closed by the client with ${code}`] = async (open, at) => {
    const c = await client(open, at);
    const gone = serverClosed(at);
    c.ws.close(code, reason);
    const got = await c.next();
    await gone;
    return [got, ...seen.get(at)];
  };
  if (code === 1011) continue; // its reason is too long for an order
  cases[`closed by the server with ${code}`] = async (open, at) => {
    const c = await client(open, at);
    const gone = serverClosed(at);
    c.ws.send(`/close ${code} ${reason}`);
    const got = await c.next();
    await gone;
    return [got, ...seen.get(at)];
  };
}

const caseTime = 60_000; // 16 MiB on a machine that is busy otherwise

function within(promise) {
  let timer;
  return Promise.race([promise, new Promise((_, fail) => { timer = setTimeout(() => fail(new Error('did not end')), caseTime); })]).finally(() => clearTimeout(timer));
}

const server = http.createServer().listen(0, '127.0.0.1');
await once(server, 'listening');
const wss = new WebSocketServer({noServer: true, perMessageDeflate: true, maxPayload, handleProtocols: (offered) => (offered.has('superchat') ? 'superchat' : false)});
server.on('upgrade', (request, socket, head) => {
  socket.on('error', () => {});
  if (request.url.startsWith('/refused')) {
    socket.end('HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n');
    return;
  }
  wss.handleUpgrade(request, socket, head, (ws) => serve(ws, request));
});

const {port} = server.address();
const {ways, stop} = await start(process.argv[2] ?? '../../bin/isthmus', port);
process.on('exit', stop);
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(2));
let failed = 0, played = 0;
try {
  const straight = {};
  for (const [way, open] of Object.entries({straight: (at, o) => overHTTP1(port, '', at, o), ...ways})) {
    for (const [i, [name, play]] of Object.entries(cases).entries()) {
      const at = `/${encodeURIComponent(way)}/${i}`;
      played++;
      try {
        const got = await within(play(open, at));
        if (way === 'straight') straight[name] = got;
        else assert.deepEqual(got, straight[name]);
      } catch (e) {
        failed++;
        console.log(`FAIL ${way}: ${name}: ${e.message}`);
      }
    }
    console.log(`${way}: ${Object.keys(cases).length} cases`);
  }
} finally {
  stop();
}
console.log(failed ? `${failed} of ${played} failed` : `all ${played} passed`);
process.exit(failed ? 1 : 0);
