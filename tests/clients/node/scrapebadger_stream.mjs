// ScrapeBadger's own SDK: the stream as typed events.
//
// Arguments: FIXTURE [refused]
import assert from "node:assert/strict";
import { ScrapeBadger } from "scrapebadger";
import { isRefused, lines, same } from "./fixture.mjs";

const client = new ScrapeBadger({
  apiKey: process.env.SCRAPEBADGER_API_KEY,
  baseUrl: process.env.SCRAPEBADGER_BASE_URL,
});

const got = [];
let failure = null;
try {
  for await (const event of client.twitter.stream.connectIter()) got.push(event);
} catch (error) {
  failure = error;
}

if (isRefused) {
  assert.deepEqual(got, []);
  assert.equal(failure?.code, 4001, String(failure));
} else {
  assert.equal(failure, null, String(failure));
  const want = lines("scrapebadger").map((line) => JSON.parse(line));
  same(got.map((event) => event.type), want.map((envelope) => envelope.type));
  const ids = got.filter((event) => event.type === "tweet").map((event) => event.tweetId ?? event.tweet_id);
  same(ids, want.filter((envelope) => envelope.type === "tweet").map((envelope) => envelope.tweet_id));
}
