// Costs of a request from the decision to its end. Called once per pass for reading, for each piece of a body that is
// watched, and once when the request has ended.
// Must never hold up an answer: what cannot be found is counted, and the reserve stays taken.
#include "ngx_http_apikey_cost.hpp"

#include <algorithm>

#include "apikey/event_number_finder.hpp"
#include "ngx_http_apikey_decision.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {

// The search for one line's figure.
struct BodyFinder {
  NumberFinder json;
  EventNumberFinder events;
};

// A body that is looked at while it passes. One finder for each line of the location, null for those that do not read
// bodies.
struct BodyWatch {
  bool is_encoded;
  bool is_events;
  bool is_partial;  // a 206
  bool is_whole;    // its last piece has passed
  std::span<BodyFinder*> finders;
};

namespace {

std::string_view value_of_variable(ngx_http_request_t* r, ngx_int_t index) noexcept {
  const auto* value = ngx_http_get_flushed_variable(r, static_cast<ngx_uint_t>(index));
  return value == nullptr || value->not_found != 0 ? std::string_view()
                                                   : std::string_view(text_of(value->data), value->len);
}

// At most once a second. Not the value: a client may have written it.
void complain_of_variable(ngx_http_request_t* r, const LocConf& conf) noexcept {
  static time_t last = 0;
  count_cost_miss(*main_conf(r), CostMiss::bad_variable);
  if (ngx_time() != last) {
    last = ngx_time();
    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "apikey_cost: a variable of location \"%V\" holds no number of 0 or more, the request is charged 1",
                  &conf.location_name);
  }
}

std::uint64_t read_amount(ngx_http_request_t* r, const LocConf& conf, const Amount& amount) noexcept {
  if (amount.variable == NGX_ERROR) {
    return amount.number;
  }
  const Figure figure = parse_figure(value_of_variable(r, amount.variable));
  if (figure.status == FigureStatus::too_large) {
    return kMaxCost;
  }
  if (figure.status != FigureStatus::found) {
    complain_of_variable(r, conf);
    return 1;
  }
  return std::min(figure.value, kMaxCost);
}

// Where the answer decides, at least 1 is taken first: a limit that is below nothing has to refuse.
std::uint64_t read_first(ngx_http_request_t* r, const LocConf& conf, const CostLine& line) noexcept {
  return std::max<std::uint64_t>(read_amount(r, conf, line.first), line.is_settled() ? 1 : 0);
}

bool begins_with(const ngx_str_t& text, std::string_view begin) noexcept {
  return text.len >= begin.size() && ngx_strncasecmp(text.data, to_ngx_str(begin).data, begin.size()) == 0;
}

bool is_encoded(const ngx_http_request_t* r) noexcept {
  const ngx_table_elt_t* encoding = r->headers_out.content_encoding;
  return encoding != nullptr && encoding->hash != 0 && encoding->value.len != 0 &&
         !begins_with(encoding->value, "identity");
}

// A part; also when nginx makes a whole of parts, by subrequests whose bodies we do not see.
bool is_partial(const ngx_http_request_t* r) noexcept {
  return r->headers_out.status == NGX_HTTP_PARTIAL_CONTENT ||
         (r->upstream != nullptr && r->upstream->headers_in.status_n == NGX_HTTP_PARTIAL_CONTENT);
}

BodyFinder* make_finder(ngx_pool_t* pool, const NumberPath& path) noexcept {
  void* memory = ngx_palloc(pool, sizeof(BodyFinder));
  return memory == nullptr ? nullptr : ::new (memory) BodyFinder{NumberFinder(path), EventNumberFinder(path)};
}

// The lines that were charged by; none where nothing is ever charged.
std::span<const CostLine> lines_in_force(const RequestCtx& ctx) noexcept {
  return cost_lines_of(*ctx.decided_by).first(ctx.charge.costs.size());
}

bool any_reads_body(std::span<const CostLine> lines) noexcept {
  return std::any_of(lines.begin(), lines.end(), [](const CostLine& line) { return line.reads_body(); });
}

// As the access log shows it.
ngx_uint_t final_status(const ngx_http_request_t* r) noexcept {
  return r->err_status != 0 ? r->err_status : r->headers_out.status;
}

bool is_refunded(const LocConf& conf, ngx_uint_t status) noexcept {
  if (conf.refund_statuses == nullptr) {
    return false;
  }
  const auto* first = static_cast<ngx_uint_t*>(conf.refund_statuses->elts);
  const auto* end = first + conf.refund_statuses->nelts;
  return std::find(first, end, status) != end;
}

CostMiss miss_of(FigureStatus status) noexcept {
  switch (status) {
    case FigureStatus::not_a_number:
      return CostMiss::not_a_number;
    case FigureStatus::too_large:
      return CostMiss::too_large;
    case FigureStatus::not_json:
      return CostMiss::not_json;
    default:
      return CostMiss::no_figure;
  }
}

// Why a body did not come by as a whole, or does not show what it says.
CostMiss miss_in_body(const ngx_http_request_t* r, const BodyWatch* watch, FigureStatus status) noexcept {
  if ((r->method & NGX_HTTP_HEAD) != 0) {
    return CostMiss::head;
  }
  if (r->headers_out.status == NGX_HTTP_NOT_MODIFIED) {
    return CostMiss::not_modified;
  }
  if (watch != nullptr && watch->is_partial) {
    return r->headers_out.status == NGX_HTTP_PARTIAL_CONTENT ? CostMiss::partial : CostMiss::slice;
  }
  if (watch != nullptr && watch->is_encoded) {
    return CostMiss::encoded;
  }
  const bool has_ended = r->header_only != 0 || (watch != nullptr && watch->is_whole);
  return has_ended ? miss_of(status) : CostMiss::aborted;
}

// RETURNS: false when there is none, and why.
bool read_figure(ngx_http_request_t* r, const BodyWatch* watch, std::size_t i, const CostLine& line, Figure& figure,
                 CostMiss& miss) noexcept {
  figure = {};
  if (!line.reads_body()) {
    figure = parse_figure(value_of_variable(r, line.response));
    miss = miss_of(figure.status);
    return figure.status == FigureStatus::found;
  }
  if (BodyFinder* finder = watch == nullptr || watch->finders.empty() ? nullptr : watch->finders[i]) {
    figure = watch->is_events ? finder->events.finish() : finder->json.finish(watch->is_whole);
  }
  miss = miss_in_body(r, watch, figure.status);
  return figure.status == FigureStatus::found;
}

void settle_lines(ngx_http_request_t* r, const BodyWatch* watch, RequestCtx& ctx) noexcept {
  const auto lines = lines_in_force(ctx);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    Figure figure;
    CostMiss miss{};
    if (!lines[i].is_settled()) {
      continue;
    }
    ctx.costs[i].is_settled = read_figure(r, watch, i, lines[i], figure, miss);
    if (ctx.costs[i].is_settled) {
      ctx.costs[i].cost = figure.value;
    } else {
      count_cost_miss(*main_conf(r), miss);
    }
  }
  if (!lines.empty() && ctx.charge.tables != nullptr) {
    settle_costs(*ctx.charge.tables, ctx.client->takings, ctx.taker, ctx.charge.costs, read_clocks());
  }
}

void refund(RequestCtx& client, const LimitTables* tables) noexcept {
  if (tables != nullptr) {
    refund_costs(*tables, client.takings, client.last_question, read_clocks());
  }
}

bool has_reached_upstream(const ngx_http_request_t* r) noexcept {
  return r->upstream_states != nullptr && r->upstream_states->nelts != 0;
}

// By itself, or by a subrequest that it was let in to make: a mirror's, say.
bool has_reached_upstream(const RequestCtx& client) noexcept {
  for (const StartedSubrequest* each = client.started; each != nullptr; each = each->before) {
    if (has_reached_upstream(each->request)) {
      return true;
    }
  }
  return has_reached_upstream(client.request);
}

}  // namespace

std::span<const CostLine> cost_lines_of(const LocConf& conf) noexcept {
  const ngx_array_t* lines = conf.cost_lines;
  return elements<const CostLine>(lines);
}

bool meters_body(const LocConf& conf) noexcept { return any_reads_body(cost_lines_of(conf)); }

bool read_costs(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx, bool may_charge) noexcept {
  const auto lines = cost_lines_of(conf);
  ctx.charge.costs = {};
  if (!may_charge || lines.empty()) {
    return true;
  }
  auto* costs = static_cast<MeasuredCost*>(ngx_palloc(r->pool, lines.size() * sizeof(MeasuredCost)));
  if (costs == nullptr) {
    return false;
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {
    ::new (costs + i) MeasuredCost{lines[i].measure, read_first(r, conf, lines[i])};
  }
  ctx.costs = {costs, lines.size()};
  ctx.charge.costs = ctx.costs;
  return true;
}

void begin_watching(ngx_http_request_t* r, const RequestCtx& deciding) noexcept {
  const auto lines = passes(deciding.verdict) ? lines_in_force(deciding) : std::span<const CostLine>();
  if (!any_reads_body(lines)) {
    return;
  }
  // nginx would cut the answer behind our back: its range filter comes after us.
  r->allow_ranges = 0;
  ngx_http_clear_accept_ranges(r);
  auto* watch = pool_new<BodyWatch>(r->pool);
  // NOLINTNEXTLINE(bugprone-sizeof-expression): they are pointers.
  auto* finders = static_cast<BodyFinder**>(ngx_pcalloc(r->pool, lines.size() * sizeof(BodyFinder*)));
  if (watch == nullptr || finders == nullptr) {
    return;
  }
  watch->is_encoded = is_encoded(r);
  watch->is_events = begins_with(r->headers_out.content_type, "text/event-stream");
  watch->is_partial = is_partial(r);
  deciding.client->watch = watch;
  if (watch->is_encoded || watch->is_partial) {
    return;
  }
  watch->finders = {finders, lines.size()};
  for (std::size_t i = 0; i < lines.size(); ++i) {
    finders[i] = lines[i].reads_body() ? make_finder(r->pool, lines[i].path) : nullptr;
  }
  // What a proxy has put into a temporary file has to come past us too.
  r->filter_need_in_memory = 1;
}

void watch(RequestCtx& client, const ngx_chain_t* in) noexcept {
  BodyWatch& watch = *client.watch;
  for (; in != nullptr; in = in->next) {
    const ngx_buf_t& buffer = *in->buf;
    if (ngx_buf_in_memory((&buffer)) && buffer.last > buffer.pos) {
      const std::string_view piece(text_of(buffer.pos), static_cast<std::size_t>(buffer.last - buffer.pos));
      for (BodyFinder* finder : watch.finders) {
        if (finder != nullptr && watch.is_events) {
          finder->events.feed(piece);
        } else if (finder != nullptr) {
          finder->json.feed(piece);
        }
      }
    }
    watch.is_whole = watch.is_whole || buffer.last_buf != 0;
  }
}

void settle(ngx_http_request_t* r, RequestCtx& client) noexcept {
  RequestCtx* deciding = deciding_ctx(r);
  for (RequestCtx* sub = client.next_sub; sub != nullptr; sub = sub->next_sub) {
    if (sub != deciding && sub->is_decided && passes(sub->verdict)) {
      settle_lines(sub->request, nullptr, *sub);
    }
  }
  if (deciding == nullptr) {
    // What a question let in and others refused afterwards costs nothing.
    if (client.asked != nullptr && client.was_asked_before_access) {
      refund(client, client.asked->charge.tables);
    }
    return;
  }
  const bool is_admitted = passes(deciding->verdict);
  if (is_admitted && !is_refunded(*deciding->decided_by, final_status(r))) {
    settle_lines(r, client.watch, *deciding);
    return;
  }
  // Refused in a later pass it costs nothing, unless an earlier one has sent it to an upstream: else a client could
  // send as many there as it likes.
  if (is_admitted || !has_reached_upstream(client)) {
    client.is_refunded = is_admitted;
    refund(client, deciding->charge.tables);
  }
}

}  // namespace apikey::nginx
