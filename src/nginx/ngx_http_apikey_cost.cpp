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

// A body that is looked at while it passes. One finder for each line of the location that reads bodies.
struct BodyWatch {
  bool is_encoded;
  bool is_events;
  bool is_whole;  // its last piece has passed
  BodyFinder* finders[kMaxCosts];
};

namespace {

std::span<const CostLine> lines_of(const LocConf& conf) noexcept {
  const ngx_array_t* lines = conf.cost_lines;
  return lines == nullptr ? std::span<const CostLine>() : std::span(static_cast<CostLine*>(lines->elts), lines->nelts);
}

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

BodyFinder* make_finder(ngx_pool_t* pool, const NumberPath& path) noexcept {
  void* memory = ngx_palloc(pool, sizeof(BodyFinder));
  return memory == nullptr ? nullptr : ::new (memory) BodyFinder{NumberFinder(path), EventNumberFinder(path)};
}

bool was_admitted(const RequestCtx& ctx) noexcept { return ctx.is_decided && passes(ctx.verdict); }

// The lines that were charged by; none where nothing is ever charged.
std::span<const CostLine> lines_in_force(const RequestCtx& ctx) noexcept {
  return lines_of(*ctx.decided_by).first(ctx.charge.costs.size());
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

// RETURNS: false when there is none, and why.
bool read_figure(ngx_http_request_t* r, const RequestCtx& ctx, std::size_t i, const CostLine& line, Figure& figure,
                 CostMiss& miss) noexcept {
  figure = {};
  if (line.reads_body() && ctx.watch != nullptr) {
    if (ctx.watch->is_encoded) {
      miss = CostMiss::encoded;
      return false;
    }
    if (BodyFinder* finder = ctx.watch->finders[i]) {
      figure = ctx.watch->is_events ? finder->events.finish() : finder->json.finish(ctx.watch->is_whole);
    }
  } else if (!line.reads_body()) {
    figure = parse_figure(value_of_variable(r, line.response));
  }
  miss = miss_of(figure.status);
  return figure.status == FigureStatus::found;
}

void settle_lines(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  const auto lines = lines_in_force(ctx);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    Figure figure;
    CostMiss miss{};
    if (!lines[i].is_settled()) {
      continue;
    }
    if (!read_figure(r, ctx, i, lines[i], figure, miss)) {
      count_cost_miss(*main_conf(r), miss);
      continue;
    }
    ctx.costs[i].cost = figure.value;
    if (ctx.charge.tables != nullptr) {
      settle_cost(*ctx.charge.tables, ctx.charge.takings, static_cast<std::uint8_t>(i), figure.value, read_clocks());
    }
  }
}

}  // namespace

std::span<const MeasuredCost> read_costs(ngx_http_request_t* r, const LocConf& conf, RequestCtx& ctx) noexcept {
  const auto lines = lines_of(conf);
  for (std::size_t i = 0; i < lines.size(); ++i) {
    ctx.costs[i] = {lines[i].measure, read_first(r, conf, lines[i])};
  }
  return std::span(ctx.costs).first(lines.size());
}

void begin_watching(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  if (!was_admitted(ctx)) {
    return;
  }
  const auto lines = lines_in_force(ctx);
  if (std::none_of(lines.begin(), lines.end(), [](const CostLine& line) { return line.reads_body(); })) {
    return;
  }
  auto* watch = pool_new<BodyWatch>(r->pool);
  if (watch == nullptr) {
    return;
  }
  watch->is_encoded = is_encoded(r);
  watch->is_events = begins_with(r->headers_out.content_type, "text/event-stream");
  ctx.watch = watch;
  if (watch->is_encoded) {
    return;
  }
  for (std::size_t i = 0; i < lines.size(); ++i) {
    watch->finders[i] = lines[i].reads_body() ? make_finder(r->pool, lines[i].path) : nullptr;
  }
  // What a proxy has put into a temporary file has to come past us too.
  r->filter_need_in_memory = 1;
}

void watch(RequestCtx& ctx, const ngx_chain_t* in) noexcept {
  BodyWatch& watch = *ctx.watch;
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

void settle(ngx_http_request_t* r, RequestCtx& ctx) noexcept {
  if (!ctx.is_decided) {
    return;
  }
  const bool is_admitted = was_admitted(ctx);
  if (is_admitted && !is_refunded(*ctx.decided_by, final_status(r))) {
    settle_lines(r, ctx);
    return;
  }
  // Refused in a later pass it costs nothing, whatever an earlier one took.
  ctx.is_refunded = is_admitted;
  if (ctx.charge.tables != nullptr) {
    refund_costs(*ctx.charge.tables, ctx.charge.takings, read_clocks());
  }
}

}  // namespace apikey::nginx
