// ScrapeBadger's own SDK: searches, timelines, monitors, filter rules and logs of the same fixture.
//
// Arguments: FIXTURE [refused]
import assert from "node:assert/strict";
import { AuthenticationError, NotFoundError, ScrapeBadger } from "scrapebadger";
import { isRefused, lines, same } from "./fixture.mjs";

const client = new ScrapeBadger({
  apiKey: process.env.SCRAPEBADGER_API_KEY,
  baseUrl: process.env.SCRAPEBADGER_BASE_URL,
  maxRetries: 0,
});
const { tweets, users, stream } = client.twitter;
const envelopes = lines("scrapebadger").map((line) => JSON.parse(line)).filter((envelope) => envelope.type === "tweet");
const posts = new Map(envelopes.map((envelope) => [envelope.tweet_id, envelope]));
const newestFirst = [...posts.keys()].sort((one, other) => (BigInt(one) < BigInt(other) ? 1 : -1));

async function everything(pages) {
  const all = [];
  for await (const item of pages) all.push(item);
  return all;
}

async function ids(pages) {
  return (await everything(pages)).map((post) => post.id);
}

async function history() {
  // Twitter's ids are larger than what a number holds exactly.
  assert.ok(newestFirst.every((id) => BigInt(id) > BigInt(Number.MAX_SAFE_INTEGER)));
  const found = await everything(tweets.searchAll("-from:nobody include:nativeretweets", { queryType: "Latest", count: 7 }));
  same(found.map((post) => post.id), newestFirst);
  for (const post of found) {
    const nested = posts.get(post.id).tweet;
    assert.deepEqual([post.full_text, post.username, post.user_id], [nested.text, nested.username, nested.user_id]);
  }
  const author = envelopes[0].author_username;
  const own = newestFirst.filter((id) => posts.get(id).author_username === author);
  same(await ids(tweets.getUserTweetsAll(author)), own);
  same(await ids(tweets.searchAll(`from:${author} include:nativeretweets`, { queryType: "Latest" })), own);
  const name = envelopes.map((envelope) => /@(\w+)/.exec(envelope.tweet.text)?.[1]).find((name) => name !== undefined);
  const isNamed = new RegExp(`@${name}\\b`, "i");
  const mentions = [];
  let page = await users.getMentions(name, { count: 1 });
  for (; page.hasMore; page = await users.getMentions(name, { count: 1, cursor: page.nextCursor })) mentions.push(...page.data);
  mentions.push(...page.data);
  same(mentions.map((post) => post.id), newestFirst.filter((id) => isNamed.test(posts.get(id).tweet.text)));
  const some = [newestFirst[9], newestFirst[0], newestFirst.at(-1)];
  same((await tweets.getByIds([...some, "1"])).data.map((post) => post.id), some);
  assert.equal((await tweets.getById(some[0])).text, posts.get(some[0]).tweet.text);
  await assert.rejects(tweets.getById("1"), NotFoundError);
}

async function monitors() {
  const known = new Set(envelopes.map((envelope) => envelope.monitor_id));
  const got = [];
  for (let page = 1; ; page += 1) {
    const listed = await stream.listMonitors({ page, pageSize: 4 });
    assert.equal(listed.total, known.size);
    if (listed.monitors.length === 0) break;
    got.push(...listed.monitors.map((monitor) => monitor.id));
  }
  assert.deepEqual(got.toSorted(), [...known].toSorted());
  const made = await stream.createMonitor({
    name: "lamps",
    usernames: ["One"],
    pollIntervalSeconds: 5,
    webhookUrl: "https://example.org/hook",
  });
  assert.deepEqual([made.usernames, made.status, made.webhook_url], [["one"], "active", "https://example.org/hook"]);
  assert.equal((await stream.pauseMonitor(made.id)).status, "paused");
  assert.equal((await stream.resumeMonitor(made.id)).status, "active");
  assert.equal((await stream.updateMonitor(made.id, { name: "lanterns" })).name, "lanterns");
  await stream.deleteMonitor(made.id);
  await assert.rejects(stream.getMonitor(made.id), NotFoundError);
}

async function rules() {
  assert.equal((await stream.listFilterRules()).total, 0, "the fixture's deliveries are all by monitors");
  assert.equal((await stream.validateFilterRuleQuery("owls")).valid, true);
  assert.equal((await stream.validateFilterRuleQuery("((owls")).valid, false);
  const made = [];
  for (let n = 0; n < 3; n += 1) {
    made.push((await stream.createFilterRule({ tag: `owls ${n}`, query: "owls", interval_seconds: 60 })).id);
  }
  const listed = [];
  for (let offset = 0; ; offset += 2) {
    const page = await stream.listFilterRules({ limit: 2, offset });
    if (page.rules.length === 0) break;
    listed.push(...page.rules.map((rule) => rule.id));
  }
  same(listed, made);
  assert.ok((await stream.getFilterRulePricingTiers()).tiers.length > 1);
  assert.equal((await stream.updateFilterRule(made[0], { status: "paused" })).status, "paused");
  assert.equal((await stream.listFilterRules({ status: "active" })).total, 2);
  assert.deepEqual((await stream.listFilterRuleLogs(made[0])).logs, []);
  for (const id of made) await stream.deleteFilterRule(id);
  await assert.rejects(stream.getFilterRule(made[0]), NotFoundError);
}

async function logs() {
  const got = [];
  for (let page = 1; ; page += 1) {
    const listed = await stream.listDeliveryLogs({ page, pageSize: 9, sort: "asc" });
    assert.equal(listed.total, envelopes.length);
    if (listed.logs.length === 0) break;
    got.push(...listed.logs);
  }
  same(got.map((row) => row.tweet_id), envelopes.map((envelope) => envelope.tweet_id));
  same(got.map((row) => row.latency_ms), envelopes.map((envelope) => envelope.latency_ms));
  const monitorId = envelopes[0].monitor_id;
  const { total } = await stream.listDeliveryLogs({ monitorId });
  assert.equal(total, envelopes.filter((envelope) => envelope.monitor_id === monitorId).length);
  assert.deepEqual((await stream.listBillingLogs()).logs, []);
}

if (isRefused) {
  await assert.rejects(tweets.search("-from:nobody"), AuthenticationError);
  await assert.rejects(stream.listMonitors(), AuthenticationError);
} else {
  await history();
  await monitors();
  await rules();
  await logs();
}
