// Counting for billing, and handing the counts out. The protocol stands in docs/usage.md; its other side is
// tools/keyloader/usage_client.cpp.
// Counted in the log phase by every worker; handed out by any of them, in parts small enough to hold up nobody.
// Must never answer anybody but who may open the unix socket: it tells who uses what, and forgets on demand.
#include "ngx_http_apikey_usage.hpp"

#include <algorithm>
#include <charconv>
#include <ctime>

#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_reply.hpp"
#include "ngx_http_apikey_text.hpp"

namespace apikey::nginx {
namespace {

constexpr std::size_t kRowsAtOnce = 1000;
constexpr std::size_t kSlotsAtOnce = std::size_t{1} << 18U;
constexpr std::uint64_t kUsPerMs = 1000;
constexpr std::array<std::string_view, kUsageNamedCounters> kCounterNames = {"admitted", "cost", "refunded", "bytes",
                                                                             "upstream_us"};

UnixSec wall_clock() noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return {now.tv_sec};
}

std::uint64_t upstream_us(const ngx_http_request_t* r) noexcept {
  if (r->upstream_states == nullptr) {
    return 0;
  }
  const auto states = elements<const ngx_http_upstream_state_t>(r->upstream_states);
  std::uint64_t sum = 0;
  for (const ngx_http_upstream_state_t& state : states) {
    // Not set where an internal redirect stands between two groups of servers.
    if (state.peer != nullptr && state.response_time != static_cast<ngx_msec_t>(-1)) {
      sum += state.response_time * kUsPerMs;
    }
  }
  return sum;
}

// What may have changed between reading the clock and counting is no worker's hour any more: see kUsageSettling.
UsageEvent event_of(const ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  UsageEvent event;
  event.key = ctx.known.record.id;
  if (ctx.known.owner.id.size() == event.owner.size()) {
    std::memcpy(event.owner.data(), ctx.known.owner.id.data(), event.owner.size());
  }
  event.outcome = ctx.verdict.is_dry_run ? Outcome::ok : ctx.verdict.outcome;
  if (event.outcome == Outcome::ok) {
    event.cost = ctx.charge.costs.empty() ? 1 : ctx.charge.costs.front().cost;
    event.cost = ctx.is_free ? 0 : event.cost;
    event.refunded = ctx.client->is_refunded ? event.cost : 0;
  }
  event.bytes = static_cast<std::uint64_t>(std::max<off_t>(r->connection->sent, 0));
  event.upstream_us = upstream_us(r);
  return event;
}

bool comes_by_unix_socket(const ngx_http_request_t* r) noexcept {
  // Not the client's address: that is whatever realip or the PROXY protocol say.
  const ngx_listening_t* listening = r->connection->listening;
  return listening != nullptr && listening->sockaddr->sa_family == AF_UNIX;
}

void add_member(Text& json, std::string_view name, std::uint64_t number) noexcept {
  json.add(",\"");
  json.add(name);
  json.add("\":");
  json.add_number(static_cast<std::int64_t>(number));
}

template <std::size_t N>
void add_hex(Text& json, const std::array<std::uint8_t, N>& bytes) noexcept {
  std::array<char, 2 * N> text;
  for (std::size_t i = 0; i < N; ++i) {
    text[2 * i] = "0123456789abcdef"[bytes[i] >> 4U];
    text[2 * i + 1] = "0123456789abcdef"[bytes[i] & 0xfU];
  }
  json.add({text.data(), text.size()});
}

constexpr std::uint64_t seconds_of(std::uint64_t hour) noexcept { return hour * kUsageHour; }

void add_head(Text& json, const UsageHead& head, UnixSec now) noexcept {
  json.add(R"({"apikey_usage":1,"instance":")");
  add_hex(json, head.instance);
  json.add("\"");
  add_member(json, "created", static_cast<std::uint64_t>(head.created));
  add_member(json, "now", static_cast<std::uint64_t>(now.value));
  add_member(json, "acknowledged_to", head.acknowledged == 0 ? 0 : seconds_of(head.acknowledged + 1));
  add_member(json, "overflows", head.overflows);
  add_member(json, "unplaced", head.unplaced);
  json.add(",\"gaps\":[");
  for (const UsageGap& gap : std::span(head.gaps).first(head.gap_count)) {
    json.add(&gap == head.gaps.data() ? "{\"from\":" : ",{\"from\":");
    json.add_number(gap.from);
    json.add(",\"to\":");
    json.add_number(gap.to);
    json.add("}");
  }
  json.add("]}\n");
}

// Counters that are 0 are left out.
void add_row(Text& json, const UsageRow& row) noexcept {
  std::array<std::uint8_t, 8> id;
  for (std::size_t i = 0; i < id.size(); ++i) {
    id[i] = static_cast<std::uint8_t>(row.row >> (56 - 8 * i));
  }
  json.add("{\"row\":\"");
  add_hex(json, id);
  json.add("\"");
  add_member(json, "hour", seconds_of(row.hour));
  if (row.key != KeyId{}) {
    const auto text = key_id_text(row.key);
    json.add(",\"key\":\"");
    json.add({text.data(), text.size()});
    json.add("\",\"owner\":\"");
    add_hex(json, row.owner);
    json.add("\"");
  }
  for (std::size_t i = 0; i < kUsageCounters; ++i) {
    if (row.counters[i] == 0) {
      continue;
    }
    if (i < kUsageNamedCounters) {
      add_member(json, kCounterNames[i], row.counters[i]);
    } else {
      json.add(",\"refused_");
      json.add(outcome_name(kUsageRefusals[i - kUsageNamedCounters]));
      json.add("\":");
      json.add_number(static_cast<std::int64_t>(row.counters[i]));
    }
  }
  json.add("}\n");
}

void compose_part(Text& json, const UsageTable& table, std::size_t from) noexcept {
  add_head(json, table.head(), wall_clock());
  const std::size_t size = table.size();
  const std::size_t end = from >= size ? size : from + std::min(kSlotsAtOnce, size - from);
  std::size_t rows = 0;
  std::size_t slot = std::min(from, size);
  UsageRow row;
  for (; slot < end && rows < kRowsAtOnce; ++slot) {
    if (table.save(slot, row)) {
      add_row(json, row);
      ++rows;
    }
  }
  json.add("{\"rows\":");
  json.add_number(static_cast<std::int64_t>(rows));
  if (slot < size) {
    add_member(json, "next", slot);
  }
  json.add("}\n");
}

ngx_int_t send(ngx_http_request_t* r, ngx_uint_t status, std::string_view type, const Text& body) noexcept {
  return body.ok() ? send_text(r, status, type, body.str()) : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

ngx_int_t refuse(ngx_http_request_t* r, ngx_uint_t status, std::string_view sentence) noexcept {
  Text json(r->pool);
  json.add("{\"error\":");
  json.add_json(sentence);
  json.add("}\n");
  return send(r, status, "application/json", json);
}

// `name=` as the only argument. RETURNS: false when there is another one.
bool read_argument(const ngx_http_request_t* r, std::string_view name, std::string_view& value) noexcept {
  const std::string_view args = view(r->args);
  if (args.substr(0, name.size()) != name) {
    return false;
  }
  value = args.substr(name.size());
  return true;
}

bool read_number(std::string_view text, std::uint64_t& number) noexcept {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return !text.empty() && error == std::errc{} && end == text.data() + text.size();
}

bool read_instance(std::string_view text, UsageInstance& instance) noexcept {
  if (text.size() != 2 * instance.size()) {
    return false;
  }
  for (std::size_t i = 0; i < instance.size(); ++i) {
    const char* begin = text.data() + 2 * i;
    const auto [end, error] = std::from_chars(begin, begin + 2, instance[i], 16);
    if (error != std::errc{} || end != begin + 2) {
      return false;
    }
  }
  return true;
}

ngx_int_t hand_out(ngx_http_request_t* r, const UsageTable& table) noexcept {
  std::string_view text;
  std::uint64_t from = 0;
  if (r->args.len != 0 && !(read_argument(r, "from=", text) && read_number(text, from))) {
    return refuse(r, NGX_HTTP_BAD_REQUEST, "the only argument is from=<slot>, as \"next\" says it");
  }
  Text json(r->pool);
  compose_part(json, table, from);
  return send(r, NGX_HTTP_OK, "application/x-ndjson", json);
}

ngx_int_t acknowledge(ngx_http_request_t* r, const UsageTable& table) noexcept {
  std::string_view text;
  UsageInstance instance{};
  std::uint64_t begin = 0;
  const bool is_there = read_argument(r, "acknowledge=", text);
  const std::size_t colon = std::min(text.find(':'), text.size());
  if (!is_there || !read_instance(text.substr(0, colon), instance) ||
      !read_number(text.substr(std::min(colon + 1, text.size())), begin) || begin % kUsageHour != 0) {
    return refuse(r, NGX_HTTP_BAD_REQUEST,
                  "the only argument is acknowledge=<instance>:<begin of the hour, in seconds since 1970>");
  }
  if (instance != table.head().instance) {
    return refuse(r, NGX_HTTP_CONFLICT, "these counts are of another instance; read them again");
  }
  if (!table.acknowledge(begin / kUsageHour, wall_clock())) {
    return refuse(r, NGX_HTTP_CONFLICT, "this hour did not end ten minutes ago, so counts may still come to it");
  }
  Text json(r->pool);
  json.add("{\"acknowledged_to\":");
  json.add_number(static_cast<std::int64_t>(seconds_of(table.head().acknowledged + 1)));
  json.add("}\n");
  return send(r, NGX_HTTP_OK, "application/json", json);
}

}  // namespace

void count_usage(ngx_http_request_t* r, const RequestCtx& ctx) noexcept {
  if (ctx.known.has_record) {
    usage_table(*main_conf(r)).count(event_of(r, ctx), wall_clock());
  }
}

void forget_collected_usage(const MainConf& main) noexcept {
  const UsageTable& table = usage_table(main);
  if (table.size() == 0) {
    return;
  }
  const UsageHead head = table.head();
  if (const std::uint64_t hour = main.node->file->inbox.hour_to_forget(head.instance); hour > head.acknowledged) {
    // An hour to which counts may still come is refused, as the inbox is not to be believed.
    static_cast<void>(table.acknowledge(hour, wall_clock()));
  }
}

ngx_int_t on_usage(ngx_http_request_t* r) noexcept {
  if (!comes_by_unix_socket(r)) {
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "apikey_usage answers on unix sockets only; give it a server of its own with listen unix:…");
    return NGX_HTTP_FORBIDDEN;
  }
  if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD | NGX_HTTP_POST)) == 0) {
    return NGX_HTTP_NOT_ALLOWED;
  }
  if (const ngx_int_t rc = ngx_http_discard_request_body(r); rc != NGX_OK) {
    return rc;
  }
  const UsageTable& table = usage_table(*main_conf(r));
  return r->method == NGX_HTTP_POST ? acknowledge(r, table) : hand_out(r, table);
}

}  // namespace apikey::nginx
