// The ways that a WebSocket can take to the server: straight, and through Isthmus in
// each protocol on either side. Each way is a function that opens one.

import {spawn} from 'node:child_process';
import fs from 'node:fs';
import http2 from 'node:http2';
import {createRequire} from 'node:module';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import WebSocket from 'ws';

// What ws itself makes of the Sec-WebSocket-Extensions of a reply, which is needed
// where the handshake is not its own.
const require = createRequire(import.meta.url);
const lib = path.join(path.dirname(require.resolve('ws')), 'lib');
const PerMessageDeflate = require(path.join(lib, 'permessage-deflate.js'));
const extension = require(path.join(lib, 'extension.js'));

export const maxPayload = 64 << 20;

function entry(host, port, {h2 = false} = {}) {
  return `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ${host}}
spec:
  hosts: [${host}]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: ${port}}}]
---${h2 ? `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ${host}}
spec:
  host: ${host}
  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}
---` : ''}`;
}

async function freePort() {
  const s = net.createServer().listen(0, '127.0.0.1');
  await new Promise((done) => s.once('listening', done));
  const {port} = s.address();
  await new Promise((done) => s.close(done));
  return port;
}

async function listening(port, running) {
  for (;;) {
    const s = net.connect(port, '127.0.0.1');
    const ok = await new Promise((done) => s.once('connect', () => done(true)).once('error', () => done(false)));
    s.destroy();
    if (ok) return;
    if (running.exitCode !== null) throw new Error(`isthmus ended with ${running.exitCode}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

async function isthmus(binary, dir, name, bootstrap, config, port) {
  const at = path.join(dir, name);
  fs.mkdirSync(path.join(at, 'config'), {recursive: true});
  fs.writeFileSync(path.join(at, 'bootstrap.yaml'), bootstrap);
  fs.writeFileSync(path.join(at, 'config', 'all.yaml'), config);
  const p = spawn(binary, ['run', '--bootstrap', path.join(at, 'bootstrap.yaml'), '--config', path.join(at, 'config')], {stdio: ['ignore', 'ignore', 'inherit']});
  await listening(port, p);
  return p;
}

// start runs two proxies: one beside the client, one beside the server. It returns
// the ways, and what ends the proxies.
export async function start(binary, serverPort) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'isthmus-websocket-'));
  const [outbound, inbound] = [await freePort(), await freePort()];
  const proxies = [];
  const stop = () => {
    for (const p of proxies) p.kill('SIGKILL');
    fs.rmSync(dir, {recursive: true, force: true});
  };
  try {
    const off = (outbound, inbound) => `listeners: {outbound: "${outbound}", inbound: "${inbound}", admin: "", metrics: "", gateway: {bind: 127.0.0.1}}\n`;
    proxies.push(await isthmus(binary, dir, 'server', 'node: {name: server, namespace: default, labels: {app: server}}\n' + off('', `127.0.0.1:${inbound}`), `
apiVersion: v1
kind: Service
metadata: {name: server, namespace: default}
spec:
  selector: {app: server}
  ports: [{name: http, port: 80, targetPort: ${serverPort}}]
`, inbound));
    proxies.push(await isthmus(binary, dir, 'client', 'node: {name: client, labels: {app: client}}\n' + off(`127.0.0.1:${outbound}`, ''),
      entry('plain.test', serverPort) + entry('multiplexed.test', inbound, {h2: true}), outbound));
  } catch (e) {
    stop();
    throw e;
  }
  return {
    stop,
    ways: {
      'HTTP/1.1': (at, o) => overHTTP1(outbound, 'plain.test', at, o),
      'HTTP/2 to HTTP/1.1': (at, o) => overHTTP2(outbound, 'plain.test', at, o),
      'HTTP/1.1 to HTTP/2 to HTTP/1.1': (at, o) => overHTTP1(outbound, 'multiplexed.test', at, o),
      'HTTP/2 all the way': (at, o) => overHTTP2(outbound, 'multiplexed.test', at, o),
    },
  };
}

// overHTTP1 opens a WebSocket as ws does by itself.
export function overHTTP1(port, host, at, {protocols = [], deflate = false} = {}) {
  return new WebSocket(`ws://127.0.0.1:${port}${at}`, protocols, {headers: host ? {host} : {}, perMessageDeflate: deflate, maxPayload});
}

// overHTTP2 opens one by extended CONNECT (RFC 8441), and hands the stream to ws.
function overHTTP2(port, authority, at, {protocols = [], deflate = false} = {}) {
  const ws = new WebSocket(null, undefined, {autoPong: true, closeTimeout: 30_000}); // ws's own defaults
  ws._isServer = false; // as ws has it where it makes the handshake itself
  const session = http2.connect(`http://127.0.0.1:${port}`);
  session.on('error', (e) => ws.emit('error', e));
  session.once('remoteSettings', (settings) => {
    if (!settings.enableConnectProtocol) {
      ws.emit('error', new Error('extended CONNECT is not announced'));
      session.destroy();
      return;
    }
    const head = {':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'http', ':authority': authority, ':path': at, 'sec-websocket-version': '13'};
    if (protocols.length) head['sec-websocket-protocol'] = protocols.join(', ');
    const pmd = deflate ? new PerMessageDeflate({isServer: false, maxPayload}) : null;
    if (pmd) head['sec-websocket-extensions'] = extension.format({[PerMessageDeflate.extensionName]: pmd.offer()});
    const stream = session.request(head, {endStream: false});
    stream.on('close', () => session.close());
    stream.on('error', (e) => ws.readyState === WebSocket.CONNECTING && ws.emit('error', e));
    stream.on('response', (reply) => {
      if (reply[':status'] !== 200) {
        ws.emit('unexpected-response', null, {statusCode: reply[':status']});
        stream.close();
        return;
      }
      ws._protocol = reply['sec-websocket-protocol'] ?? '';
      const agreed = reply['sec-websocket-extensions'] && extension.parse(reply['sec-websocket-extensions'])[PerMessageDeflate.extensionName];
      if (agreed) {
        pmd.accept(agreed);
        ws._extensions[PerMessageDeflate.extensionName] = pmd;
      }
      ws.setSocket(stream, Buffer.alloc(0), {allowSynchronousEvents: true, maxPayload, skipUTF8Validation: false});
    });
  });
  return ws;
}
