// The directives about limits of a location: apikey_limit, apikey_concurrency, apikey_fail_limit.
// Called by nginx while it reads the configuration; merge_limits() by ngx_http_apikey_conf.cpp. Each refusal is a
// sentence: the directive, the value, what to write instead.
#include <algorithm>

#include "apikey/fold64.hpp"
#include "apikey/rate_spec.hpp"
#include "ngx_http_apikey_conf.hpp"

namespace apikey::nginx {
namespace {

// Takes `name=value` apart. RETURNS: false when `text` does not begin so; else `value` is what follows.
bool cut_parameter(const ngx_str_t& text, std::string_view key, std::string_view& value) noexcept {
  if (!view(text).starts_with(key)) {
    return false;
  }
  value = view(text).substr(key.size());
  return true;
}

char* refuse(ngx_conf_t* cf, const ngx_str_t& directive, const ngx_str_t& text, const char* instead) noexcept {
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%V: \"%V\" %s", &directive, &text, instead);
  return conf_error();
}

const ngx_str_t& directive_of(const ngx_conf_t* cf) noexcept { return *static_cast<ngx_str_t*>(cf->args->elts); }

char* parse_rate_value(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, Rate& rate) noexcept {
  if (rate.amount != 0) {
    return refuse(cf, directive_of(cf), text, "is the second rate= of the line, write each parameter once");
  }
  if (!parse_rate(value, rate).ok()) {
    return refuse(cf, directive_of(cf), text,
                  "is not a rate, write a number from 1 to 1000000000 per second, minute or hour, such as rate=100r/s, "
                  "rate=30r/m or rate=1000r/h");
  }
  return NGX_CONF_OK;
}

char* parse_burst_value(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, std::uint64_t& burst) noexcept {
  if (burst != 0) {
    return refuse(cf, directive_of(cf), text, "is the second burst= of the line, write each parameter once");
  }
  if (value == "0") {
    return refuse(cf, directive_of(cf), text,
                  "would admit nothing: burst is the size of the bucket; limit_req's burst=n is burst=n+1 here");
  }
  if (!parse_burst(value, burst).ok()) {
    return refuse(cf, directive_of(cf), text,
                  "is not a burst, write a whole number of requests from 1 to 1000000000, such as burst=50");
  }
  return NGX_CONF_OK;
}

char* parse_by(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, LimitConf& limit) noexcept {
  if (limit.has_by) {
    return refuse(cf, directive_of(cf), text, "is the second by= of the line, write each parameter once");
  }
  limit.has_by = true;
  if (value == "key" || value == "owner") {
    limit.policy.by = value == "key" ? LimitBy::key : LimitBy::owner;
    return NGX_CONF_OK;
  }
  if (value.size() < 2 || value.front() != '$') {
    return refuse(cf, directive_of(cf), text, "is not known, write by=key, by=owner or by=$variable");
  }
  ngx_str_t name = to_ngx_str(value.substr(1));
  limit.policy.by = LimitBy::value;
  limit.is_address = view(name) == "remote_addr" || view(name) == "binary_remote_addr";
  limit.variable = ngx_http_get_variable_index(cf, &name);
  return limit.variable == NGX_ERROR ? conf_error() : NGX_CONF_OK;
}

bool is_limit_name(std::string_view name) noexcept {
  const auto is_good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
           c == '-';
  };
  return !name.empty() && name.size() <= 64 && std::all_of(name.begin(), name.end(), is_good);
}

char* parse_name(ngx_conf_t* cf, const ngx_str_t& text, std::string_view value, std::string_view& name) noexcept {
  if (!name.empty()) {
    return refuse(cf, directive_of(cf), text, "is the second name of the line, write each parameter once");
  }
  if (!is_limit_name(value)) {
    return refuse(cf, directive_of(cf), text, "is not a name, write 1 to 64 characters of A-Z a-z 0-9 . _ -");
  }
  name = value;
  return NGX_CONF_OK;
}

// A limit without a name is shown by the name of its location. What tells it apart is its place.
void name_by_location(ngx_conf_t* cf, LimitConf& limit) noexcept {
  const auto& core =
      *static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
  limit.policy.limit.name = core.name.len == 0 ? std::string_view("server") : view(core.name);
}

// Not in a server or in http, whose lines are for many places.
bool is_in_location(const ngx_conf_t* cf) noexcept {
  return (cf->cmd_type & (NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF | NGX_HTTP_LMT_CONF)) != 0;
}

ngx_array_t* limit_array(ngx_conf_t* cf, ngx_array_t*& array) noexcept {
  if (array == unset_array()) {
    array = ngx_array_create(cf->pool, 4, sizeof(LimitConf));
  }
  return array;
}

bool is_same(const LimitConf& a, const LimitConf& b) noexcept {
  const LocationLimit& x = a.policy.limit;
  const LocationLimit& y = b.policy.limit;
  return x.kind == y.kind && x.rate == y.rate && x.burst == y.burst && a.policy.by == b.policy.by &&
         a.variable == b.variable;
}

// Two limits of one name are one limit, so they must say the same.
char* check_name(ngx_conf_t* cf, const LimitConf& limit) noexcept {
  auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  const ngx_str_t name = to_ngx_str(limit.policy.limit.name);
  for (const LimitConf& other : elements<LimitConf>(main->named_limits)) {
    if (other.policy.limit.name == limit.policy.limit.name && other.policy.limit.kind == limit.policy.limit.kind &&
        !is_same(other, limit)) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                         "%V: name=%V is a limit with another %s or by= already; two limits of one name are one, write "
                         "the same values or another name",
                         &directive_of(cf), &name,
                         limit.policy.limit.kind == LimitKind::rate ? "rate, burst" : "number");
      return conf_error();
    }
  }
  auto* place = push_to<LimitConf>(&main->named_limits);
  if (place == nullptr) {
    return conf_error();
  }
  *place = limit;
  return NGX_CONF_OK;
}

char* add_limit(ngx_conf_t* cf, ngx_array_t*& array, LimitConf limit) noexcept {
  if (limit_array(cf, array) == nullptr) {
    return conf_error();
  }
  limit.policy.stands_here = limit.policy.limit.name.empty() || is_in_location(cf);
  if (limit.policy.limit.name.empty()) {
    name_by_location(cf, limit);
  } else if (check_name(cf, limit) != NGX_CONF_OK) {
    return conf_error();
  } else {
    limit.has_name = true;
  }
  auto* place = push_to<LimitConf>(array);
  if (place == nullptr) {
    return conf_error();
  }
  *place = limit;
  return NGX_CONF_OK;
}

char* add_required(ngx_conf_t* cf, LocConf& location, std::string_view name) noexcept {
  if (location.required_limits == unset_array()) {
    location.required_limits = ngx_array_create(cf->pool, 2, sizeof(std::string_view));
  }
  auto* place = location.required_limits == nullptr ? nullptr : push_to<std::string_view>(location.required_limits);
  if (place == nullptr) {
    return conf_error();
  }
  *place = name;
  return NGX_CONF_OK;
}

// The lines of one kind that are written in one block. Lines with a name are not counted: they have no place.
void place_lines(ngx_conf_t* cf, const LocConf& conf, std::span<LimitConf> lines) noexcept {
  std::uint64_t number = 0;
  for (LimitConf& line : lines) {
    LocationLimit& limit = line.policy.limit;
    if (line.has_name || limit.place != 0) {
      continue;
    }
    Fold64 fold(3 * sizeof(std::uint64_t));
    fold.word(place_of(cf, conf));
    fold.word(static_cast<std::uint64_t>(limit.kind));
    fold.word(number++);
    limit.place = fold.value();
  }
}

}  // namespace

char* set_limit(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  const auto args = arguments(cf);
  LimitConf limit;
  LocationLimit& parsed = limit.policy.limit;
  std::string_view required;
  for (const ngx_str_t& text : args) {
    std::string_view value;
    char* result = NGX_CONF_OK;
    if (cut_parameter(text, "rate=", value)) {
      result = parse_rate_value(cf, text, value, parsed.rate);
    } else if (cut_parameter(text, "burst=", value)) {
      result = parse_burst_value(cf, text, value, parsed.burst);
    } else if (cut_parameter(text, "by=", value)) {
      result = parse_by(cf, text, value, limit);
    } else if (cut_parameter(text, "name=", value)) {
      result = parse_name(cf, text, value, parsed.name);
    } else if (cut_parameter(text, "require=", value)) {
      result = parse_name(cf, text, value, required);
    } else {
      result = refuse(cf, directive_of(cf), text,
                      "is not known, write rate=<rate> [burst=<n>] [by=key|owner|$variable] [name=<name>], or "
                      "require=<name>");
    }
    if (result != NGX_CONF_OK) {
      return result;
    }
  }
  if (!required.empty()) {
    if (args.size() != 1) {
      return refuse(cf, directive_of(cf), args[0], "meets require=, which stands alone on its line");
    }
    return add_required(cf, location, required);
  }
  if (parsed.rate.amount == 0) {
    return refuse(cf, directive_of(cf), args[0], "comes without a rate, write rate=<rate>, such as rate=100r/s");
  }
  parsed.burst = parsed.burst == 0 ? default_burst(parsed.rate) : parsed.burst;
  return add_limit(cf, location.limits, limit);
}

char* set_concurrency(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  const auto args = arguments(cf);
  LimitConf limit;
  limit.policy.limit.kind = LimitKind::concurrency;
  const ngx_int_t most = ngx_atoi(args[0].data, args[0].len);
  if (most <= 0 || static_cast<std::uint64_t>(most) > kMaxConcurrency) {
    return refuse(cf, directive_of(cf), args[0],
                  "is not a number of requests at once, write one from 1 to 60000, such as apikey_concurrency 20");
  }
  limit.policy.limit.burst = static_cast<std::uint64_t>(most);
  for (const ngx_str_t& text : args.subspan(1)) {
    std::string_view value;
    char* result = NGX_CONF_OK;
    if (cut_parameter(text, "by=", value)) {
      result = parse_by(cf, text, value, limit);
    } else if (cut_parameter(text, "name=", value)) {
      result = parse_name(cf, text, value, limit.policy.limit.name);
    } else {
      result = refuse(cf, directive_of(cf), text, "is not known, write by=key, by=owner, by=$variable or name=<name>");
    }
    if (result != NGX_CONF_OK) {
      return result;
    }
  }
  return add_limit(cf, location.concurrency, limit);
}

char* set_fail_limit(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  const auto args = arguments(cf);
  if (location.has_fail_limit != NGX_CONF_UNSET) {
    return duplicate();
  }
  location.has_fail_limit = 1;
  if (args.size() == 1 && view(args[0]) == "off") {
    return NGX_CONF_OK;
  }
  Rate rate;
  std::uint64_t burst = 0;
  for (const ngx_str_t& text : args) {
    std::string_view value;
    char* result = NGX_CONF_OK;
    if (cut_parameter(text, "rate=", value)) {
      result = parse_rate_value(cf, text, value, rate);
    } else if (cut_parameter(text, "burst=", value)) {
      result = parse_burst_value(cf, text, value, burst);
    } else if (view(text) == "block=all") {
      location.fail_limit.blocks_all = true;
    } else {
      result = refuse(cf, directive_of(cf), text,
                      "is not known, write rate=<rate> [burst=<n>] [block=all], such as apikey_fail_limit rate=10r/m, "
                      "or off");
    }
    if (result != NGX_CONF_OK) {
      return result;
    }
  }
  if (rate.amount == 0) {
    return refuse(cf, directive_of(cf), args[0], "comes without a rate, write rate=<rate>, such as rate=10r/m");
  }
  location.fail_limit.is_on = true;
  location.fail_limit.limit = make_rate_limit(rate, burst == 0 ? default_burst(rate) : burst);
  return NGX_CONF_OK;
}

void place_limits(ngx_conf_t* cf, LocConf& conf) noexcept {
  for (ngx_array_t* array : {conf.limits, conf.concurrency}) {
    if (array != unset_array()) {
      place_lines(cf, conf, elements<LimitConf>(array));
    }
  }
  if (conf.has_fail_limit == 1 && conf.fail_limit.is_on && conf.fail_limit.place == 0) {
    conf.fail_limit.place = place_of(cf, conf);
  }
}

void merge_limits(LocConf& conf, const LocConf& outer) noexcept {
  ngx_conf_merge_ptr_value(conf.limits, outer.limits, nullptr);
  ngx_conf_merge_ptr_value(conf.required_limits, outer.required_limits, nullptr);
  ngx_conf_merge_ptr_value(conf.concurrency, outer.concurrency, nullptr);
  if (conf.has_fail_limit == NGX_CONF_UNSET) {
    conf.has_fail_limit = outer.has_fail_limit;
    conf.fail_limit = outer.fail_limit;
  }
  ngx_conf_merge_uint_value(conf.dry_run, outer.dry_run, static_cast<ngx_uint_t>(DryRun::off));
}

char* make_limit_policy(ngx_conf_t* cf, LocConf& conf, LocationPolicy& policy) noexcept {
  policy.fail_limit = conf.fail_limit;
  policy.dry_run = static_cast<DryRun>(conf.dry_run);
  const auto required = elements<std::string_view>(conf.required_limits);
  policy.required_limits = {required.data(), required.size()};
  const auto rates = elements<LimitConf>(conf.limits);
  const auto flights = elements<LimitConf>(conf.concurrency);
  const std::size_t count = rates.size() + flights.size();
  if (count > kMaxLocationLimits) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_limit: \"%V\" has %uz limits with apikey_concurrency, at most %uz are possible",
                       &conf.location_name, count, kMaxLocationLimits);
    return conf_error();
  }
  if (count == 0) {
    return NGX_CONF_OK;
  }
  auto* limits = static_cast<PolicyLimit*>(ngx_palloc(cf->pool, count * sizeof(PolicyLimit)));
  conf.limit_variables = static_cast<LimitVariable*>(ngx_palloc(cf->pool, count * sizeof(LimitVariable)));
  if (limits == nullptr || conf.limit_variables == nullptr) {
    return conf_error();
  }
  conf.limit_variable_count = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const LimitConf& limit = i < rates.size() ? rates[i] : flights[i - rates.size()];
    auto* policy_limit = ::new (limits + i) PolicyLimit(limit.policy);
    if (limit.policy.by == LimitBy::value) {
      policy_limit->value = conf.limit_variable_count;
      conf.limit_variables[conf.limit_variable_count++] = {static_cast<ngx_uint_t>(limit.variable), limit.is_address};
    }
  }
  policy.limits = {limits, count};
  return NGX_CONF_OK;
}

}  // namespace apikey::nginx
