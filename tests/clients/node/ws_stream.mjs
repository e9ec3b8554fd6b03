// `ws`: every message of a provider's stream, byte for byte, to its close.
//
// Arguments: FIXTURE PROVIDER [refused]
import assert from "node:assert/strict";
import WebSocket from "ws";
import { isRefused, lines, same } from "./fixture.mjs";

const provider = process.argv[3];

function dial() {
  if (provider === "twitterapi_io") {
    const headers = { "x-api-key": process.env.TWITTERAPI_IO_API_KEY };
    return new WebSocket(process.env.TWITTERAPI_IO_WS_URL, { headers });
  }
  const token = `tweetstream.auth.token.${process.env.TWEETSTREAM_API_KEY}`;
  return new WebSocket(process.env.TWEETSTREAM_WS_URL, ["tweetstream.v1", token]);
}

const socket = dial();
const got = [];
const errors = [];
let isOpen = false;
socket.on("open", () => {
  isOpen = true;
});
socket.on("message", (data, isBinary) => {
  assert.equal(isBinary, false);
  got.push(data.toString());
});
socket.on("error", (error) => errors.push(error.message));
const code = await new Promise((resolve) => {
  socket.on("close", resolve);
});

if (isRefused) {
  assert.equal(isOpen, false);
  assert.deepEqual(errors, ["Unexpected server response: 401"]);
} else {
  assert.deepEqual(errors, []);
  assert.equal(code, 1001);
  if (provider === "tweetstream") assert.equal(socket.protocol, "tweetstream.v1");
  same(got, lines(provider));
}
