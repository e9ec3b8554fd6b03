// What the fixture holds for a provider, and the arguments every client script takes.
import { readFileSync } from "node:fs";
import assert from "node:assert/strict";

function providerOf(envelope) {
  if ("topic" in envelope) return "x_live";
  if ("event_type" in envelope || Array.isArray(envelope.tweets)) return "twitterapi_io";
  if (envelope.v === 1 && "op" in envelope) return "tweetstream";
  return "scrapebadger";
}

/** The provider's envelopes, each the text that must arrive. */
export function lines(provider) {
  const all = readFileSync(process.argv[2], "utf8").split("\n");
  const found = all.filter((line) => line !== "" && providerOf(JSON.parse(line)) === provider);
  assert.ok(found.length > 20, `the fixture holds ${found.length} envelopes of ${provider}`);
  return found;
}

/** Whether the key of this run is a wrong one. */
export const isRefused = process.argv.at(-1) === "refused";

/** Stops at the first difference. */
export function same(got, want) {
  got.slice(0, want.length).forEach((one, idx) => assert.equal(one, want[idx], `number ${idx}`));
  assert.equal(got.length, want.length);
}
