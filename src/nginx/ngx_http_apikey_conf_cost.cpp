// The directives about costs: apikey_cost and apikey_refund.
// Called by nginx while it reads the configuration; merge_costs() by ngx_http_apikey_conf.cpp. Each refusal is a
// sentence: the directive, the value, what to write instead.
#include <algorithm>

#include "apikey/limit_gathering.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_content.hpp"
#include "ngx_http_apikey_cost.hpp"

namespace apikey::nginx {
namespace {

constexpr ngx_int_t kLowestStatus = 200;
constexpr ngx_int_t kHighestStatus = 599;
constexpr std::size_t kMaxMeasure = 64;

char* refuse(ngx_conf_t* cf, const ngx_str_t& text, const char* remedy) noexcept {
  const auto* directive = static_cast<ngx_str_t*>(cf->args->elts);
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%V: \"%V\" %s", directive, &text, remedy);
  return conf_error();
}

// RETURNS: NGX_ERROR when it has been complained of.
ngx_int_t variable_index(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value) noexcept {
  if (value.size() < 2) {
    static_cast<void>(refuse(cf, text, "names no variable, write $ and its name"));
    return NGX_ERROR;
  }
  ngx_str_t name = to_ngx_str(value.substr(1));
  return ngx_http_get_variable_index(cf, &name);
}

char* parse_amount(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, Amount& amount) noexcept {
  if (value.starts_with('$')) {
    amount.variable = variable_index(cf, text, value);
    return amount.variable == NGX_ERROR ? conf_error() : NGX_CONF_OK;
  }
  const ngx_str_t digits = to_ngx_str(value);
  const ngx_int_t number = ngx_atoi(digits.data, digits.len);
  if (number < 0 || static_cast<std::uint64_t>(number) > kMaxCost) {
    return refuse(cf, text,
                  "is not what a request can cost, write a whole number from 0 to 1000000000, or $<variable>");
  }
  amount.number = static_cast<std::uint64_t>(number);
  return NGX_CONF_OK;
}

bool is_measure(std::string_view text) noexcept {
  constexpr std::string_view allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
  return !text.empty() && text.size() <= kMaxMeasure && text.find_first_not_of(allowed) == std::string_view::npos;
}

char* parse_measure(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, CostLine& line) noexcept {
  if (value == "*") {
    line.counts_all = true;
    return NGX_CONF_OK;
  }
  if (!is_measure(value)) {
    return refuse(cf, text,
                  "is not a measure, write the first part of the names of the limits it is for, such as of=tokens for "
                  "tokens and tokens.month, or of=* for all that no other line is for");
  }
  if (measure_of(value).empty()) {
    return refuse(cf, text, "counts requests, as all limits do that have no name of their own: write of=requests");
  }
  if (value == "concurrency") {
    return refuse(cf, text, "counts requests in flight, which cost nothing");
  }
  line.measure = value;
  return NGX_CONF_OK;
}

char* parse_response(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, CostLine& line) noexcept {
  constexpr std::string_view json = "json:";
  if (value.starts_with('$')) {
    line.response = variable_index(cf, text, value);
    return line.response == NGX_ERROR ? conf_error() : NGX_CONF_OK;
  }
  if (!value.starts_with(json) || !parse_number_path(value.substr(json.size()), line.path).ok()) {
    return refuse(cf, text,
                  "does not say where the cost stands, write response=$<variable>, or response=json: and 1 to 8 member "
                  "names with dots between them, such as response=json:usage.total_tokens");
  }
  return NGX_CONF_OK;
}

// The parameters of a line, each of them at most once.
struct Parameter {
  std::string_view key;
  char* (*parse)(ngx_conf_t*, const ngx_str_t&, std::string_view, CostLine&) noexcept;
};

char* parse_reserve(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, CostLine& line) noexcept {
  return parse_amount(cf, text, value, line.first);
}

constexpr Parameter kParameters[] = {
    {"of=", parse_measure}, {"reserve=", parse_reserve}, {"response=", parse_response}};

char* parse_parameter(ngx_conf_t* cf, const ngx_str_t& text, unsigned& seen, CostLine& line) noexcept {
  for (std::size_t i = 0; i < std::size(kParameters); ++i) {
    const Parameter& parameter = kParameters[i];
    if (!view(text).starts_with(parameter.key)) {
      continue;
    }
    if ((seen >> i & 1) != 0) {
      return refuse(cf, text, "says a parameter of the line for the second time, write each once");
    }
    seen |= 1U << i;
    return parameter.parse(cf, text, view(text).substr(parameter.key.size()), line);
  }
  return refuse(cf, text, "is not known, write of=<measure>, reserve=<n> or response=$<variable>|json:<path>");
}

char* parse_line(ngx_conf_t* cf, CostLine& line) noexcept {
  const auto args = arguments(cf);
  if (parse_amount(cf, args[0], view(args[0]), line.first) != NGX_CONF_OK) {
    return conf_error();
  }
  unsigned seen = 0;
  const ngx_str_t* reserve = nullptr;
  for (const ngx_str_t& text : args.subspan(1)) {
    if (view(text).starts_with("reserve=")) {
      line.first = {};
      reserve = &text;
    }
    if (parse_parameter(cf, text, seen, line) != NGX_CONF_OK) {
      return conf_error();
    }
  }
  if (reserve != nullptr && !line.is_settled()) {
    return refuse(cf, *reserve,
                  "would never be settled, add response=, or write the number as the cost and leave reserve= out");
  }
  return NGX_CONF_OK;
}

constexpr std::size_t kPlacesInLine = 10;

bool contains(const ngx_array_t& measures, std::string_view measure) noexcept {
  const auto all = elements<std::string_view>(&measures);
  return std::find(all.begin(), all.end(), measure) != all.end();
}

bool add(ngx_array_t& measures, std::string_view measure) noexcept {
  auto* place = push_to<std::string_view>(&measures);
  if (place != nullptr) {
    *place = measure;
  }
  return place != nullptr;
}

// So that every location knows which limits may be charged after the fact.
bool note_settled_measure(ngx_conf_t* cf, std::string_view measure) noexcept {
  auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  return contains(main->settled_measures, measure) || add(main->settled_measures, measure);
}

// By a cost for it, for everything, or by asking for a limit of it.
bool names(const LocConf& conf, std::string_view measure) noexcept {
  const auto lines = cost_lines_of(conf);
  const auto& required = conf.policy->required_limits;
  return std::any_of(lines.begin(), lines.end(),
                     [measure](const CostLine& line) { return line.counts_all || line.measure == measure; }) ||
         std::any_of(required.begin(), required.end(),
                     [measure](std::string_view name) { return measure_of(name) == measure; });
}

std::span<LocConf*> locations_of(const MainConf& main) noexcept { return elements<LocConf*>(&main.locations); }

// What any location of the store names. Limits that have no name of their own count everywhere.
bool gather_measures(const MainConf& main, const StoreConf& store, ngx_array_t& measures) noexcept {
  for (const LocConf* conf : locations_of(main)) {
    for (const CostLine& line : conf->store == &store ? cost_lines_of(*conf) : std::span<const CostLine>()) {
      const bool is_new = !line.measure.empty() && line.measure != "requests" && !contains(measures, line.measure);
      if (is_new && !add(measures, line.measure)) {
        return false;
      }
    }
  }
  return true;
}

bool leave_out(ngx_pool_t* pool, const LocConf& conf, const ngx_array_t& measures) noexcept {
  ngx_array_t uncounted;
  if (!init_array<std::string_view>(uncounted, pool)) {
    return false;
  }
  for (const std::string_view measure : elements<std::string_view>(&measures)) {
    if (!names(conf, measure) && !add(uncounted, measure)) {
      return false;
    }
  }
  const auto all = elements<std::string_view>(&uncounted);
  conf.policy->uncounted_measures = {all.data(), all.size()};
  return true;
}

void list_places(ngx_conf_t* cf, const StoreConf& store, std::string_view measure, std::string_view places) noexcept {
  const ngx_str_t name = to_ngx_str(measure);
  const ngx_str_t list = to_ngx_str(places);
  // Meant as it is: a start need not warn of it.
  ngx_conf_log_error(
      ngx_test_config != 0 ? NGX_LOG_WARN : NGX_LOG_NOTICE, cf, 0,
      "apikey_cost: limits of \"%V\" count only where of=%V is written for store \"%V\", and so no longer "
      "in %V; write apikey_cost 1 of=* where they are meant to",
      &name, &name, &store.name, &list);
}

void list_uncounted(ngx_conf_t* cf, const MainConf& main, const StoreConf& store, std::string_view measure) noexcept {
  u_char list[1024];
  u_char* end = list;
  std::size_t count = 0;
  for (const LocConf* conf : locations_of(main)) {
    const auto& uncounted = conf->policy->uncounted_measures;
    if (conf->store != &store || !conf->is_place ||
        std::find(uncounted.begin(), uncounted.end(), measure) == uncounted.end()) {
      continue;
    }
    end = ngx_slprintf(end, list + sizeof(list), "%s\"%V\"", end == list ? "" : ", ", &conf->location_name);
    if (++count % kPlacesInLine == 0) {
      list_places(cf, store, measure, {text_of(list), static_cast<std::size_t>(end - list)});
      end = list;
    }
  }
  if (end != list) {
    list_places(cf, store, measure, {text_of(list), static_cast<std::size_t>(end - list)});
  }
}

}  // namespace

char* set_cost(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  CostLine parsed;
  if (parse_line(cf, parsed) != NGX_CONF_OK) {
    return conf_error();
  }
  if (location.cost_lines == unset_array()) {
    location.cost_lines = ngx_array_create(cf->pool, 4, sizeof(CostLine));
  }
  if (location.cost_lines == nullptr) {
    return conf_error();
  }
  const ngx_str_t& first = arguments(cf)[0];
  const auto others = elements<CostLine>(location.cost_lines);
  if (std::any_of(others.begin(), others.end(), [&](const CostLine& line) { return line.measure == parsed.measure; })) {
    return refuse(
        cf, first,
        "is the second cost of the same measure, write one line for each of=<measure>, and one for all others, with "
        "of=* or without of=");
  }
  auto* line = push_to<CostLine>(location.cost_lines);
  if (line == nullptr || (parsed.is_settled() && !note_settled_measure(cf, parsed.measure))) {
    return conf_error();
  }
  *line = parsed;
  return NGX_CONF_OK;
}

char* set_refund(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  if (location.refund_statuses != unset_array()) {
    return duplicate();
  }
  location.refund_statuses = ngx_array_create(cf->pool, 4, sizeof(ngx_uint_t));
  if (location.refund_statuses == nullptr) {
    return conf_error();
  }
  for (const ngx_str_t& text : arguments(cf)) {
    const ngx_int_t status = ngx_atoi(text.data, text.len);
    if (status < kLowestStatus || status > kHighestStatus) {
      return refuse(cf, text, "is not a status, write numbers from 200 to 599, such as apikey_refund 502 503 504");
    }
    const auto others = elements<ngx_uint_t>(location.refund_statuses);
    if (std::find(others.begin(), others.end(), static_cast<ngx_uint_t>(status)) != others.end()) {
      return refuse(cf, text, "stands twice in the list, remove one");
    }
    auto* place = push_to<ngx_uint_t>(location.refund_statuses);
    if (place == nullptr) {
      return conf_error();
    }
    *place = static_cast<ngx_uint_t>(status);
  }
  return NGX_CONF_OK;
}

ngx_int_t finish_measures(ngx_conf_t* cf, MainConf& main) noexcept {
  for (const StoreConf* store : elements<StoreConf*>(&main.stores)) {
    ngx_array_t measures;
    if (!init_array<std::string_view>(measures, cf->pool) || !gather_measures(main, *store, measures)) {
      return NGX_ERROR;
    }
    for (const LocConf* conf : locations_of(main)) {
      // apikey_whoami shows all that the key has.
      if (conf->store == store && conf->content != on_whoami && !leave_out(cf->pool, *conf, measures)) {
        return NGX_ERROR;
      }
    }
    for (const std::string_view measure : elements<std::string_view>(&measures)) {
      list_uncounted(cf, main, *store, measure);
    }
  }
  return NGX_OK;
}

void merge_costs(LocConf& conf, const LocConf& outer) noexcept {
  ngx_conf_merge_ptr_value(conf.cost_lines, outer.cost_lines, nullptr);
  ngx_conf_merge_ptr_value(conf.refund_statuses, outer.refund_statuses, nullptr);
}

}  // namespace apikey::nginx
