// What `nginx -t` says of locations that nobody can pass, whatever key comes: each directive is right, together they
// refuse everybody. Called when all is merged.
// Must never warn of what somebody passes, or of what was closed on purpose: where the configuration alone does not
// tell, it is silent.
#include <algorithm>
#include <array>

#include "apikey/limit_gathering.hpp"
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_content.hpp"
#include "ngx_http_apikey_cost.hpp"
#include "ngx_http_apikey_neighbours.hpp"
#include "ngx_http_apikey_policies.hpp"
#include "ngx_http_apikey_question.hpp"

namespace apikey::nginx {
namespace {

// A location, or the limit_except in it.
struct Site {
  const LocConf& conf;
  void** confs;       // of all modules
  MethodSet methods;  // those of a request that gets to it
};

enum class Bar { none, address, password, cost, method, question };

struct Reading {
  Bar bar = Bar::none;
  LimitUse limit{};  // of Bar::cost
  std::uint64_t burst = 0;
};

bool is_http(const LocConf& conf) noexcept { return conf.block.outer == nullptr; }
bool is_server(const LocConf& conf) noexcept { return !is_http(conf) && is_http(*conf.block.outer); }

void** confs_of(const LocConf& conf) noexcept { return is_server(conf) ? conf.server->ctx->loc_conf : conf.loc_confs; }

// What all modules have for the block in which `apikey` is written that counts here.
void** confs_of_apikey(ngx_conf_t* cf, const LocConf& conf) noexcept {
  const LocConf* block = &conf;
  const auto inherits = [](const LocConf& inner) {
    const LocConf* outer = inner.block.outer;
    return outer != nullptr && outer->is_on == 1 && outer->realm.data == inner.realm.data;
  };
  while (inherits(*block)) {
    block = block->block.outer;
  }
  return is_http(*block) ? static_cast<ngx_http_conf_ctx_t*>(cf->ctx)->loc_conf : confs_of(*block);
}

bool needs_all(const Site& site) noexcept { return core_of(site.confs)->satisfy == NGX_HTTP_SATISFY_ALL; }

// A location closes itself by `deny all`. Where it is no wider than apikey, one of the two is a mistake.
bool denies_who_has_a_key(ngx_conf_t* cf, const Site& site) noexcept {
  return needs_all(site) && !site.conf.is_content && denies_everybody(*cf->cycle, site.confs) &&
         denies_everybody(*cf->cycle, confs_of_apikey(cf, site.conf));
}

// One header cannot hold both. Of a key that is hidden nothing is left for auth_basic to read.
bool asks_twice_of_authorization(ngx_conf_t* cf, const Site& site) noexcept {
  const LocationPolicy& policy = *site.conf.policy;
  if (!needs_all(site) || site.conf.is_content || policy.is_optional || policy.dry_run == DryRun::on ||
      !asks_for_password(*cf->cycle, site.confs)) {
    return false;
  }
  const auto sources = elements<const Source>(site.conf.sources);
  return std::all_of(sources.begin(), sources.end(), [&](const Source& source) {
    return source.kind == SourceKind::bearer || source.kind == SourceKind::scheme ||
           (source.kind == SourceKind::basic && site.conf.hides == 1);
  });
}

constexpr std::size_t kMostCosts = 32;

// What a request costs at least; a variable may say 0. RETURNS: false where there are too many lines to look at.
bool least_costs(const LocConf& conf, std::array<MeasuredCost, kMostCosts>& costs, std::size_t& count) noexcept {
  const auto lines = cost_lines_of(conf);
  count = lines.size();
  if (count > costs.size()) {
    return false;
  }
  std::transform(lines.begin(), lines.end(), costs.begin(), [](const CostLine& line) {
    return MeasuredCost{line.measure, line.first.variable == NGX_ERROR ? line.first.number : 0};
  });
  return true;
}

// A request that another location has redirected here may have been charged there.
bool costs_more_than_there_is(const MainConf& main, const Site& site, Reading& reading) noexcept {
  const LocConf& conf = site.conf;
  const LocationPolicy& policy = *conf.policy;
  std::array<MeasuredCost, kMostCosts> costs;
  std::size_t count = 0;
  const bool is_charged = conf.content == on_verify || (!conf.is_content && needs_all(site));
  if (!is_charged || core_of(site.confs)->named != 0 || policy.dry_run == DryRun::limits ||
      policy.dry_run == DryRun::on || !least_costs(conf, costs, count)) {
    return false;
  }
  LimitTables tables;
  tables.share = main.share;
  for (const PolicyLimit& limit : policy.limits) {
    const LimitUse use = location_use(limit.limit, 0, false, tables, std::span(costs).first(count));
    if (counts_here(policy, limit) && use.cost > use.size) {
      reading.limit = use;
      reading.burst = limit.limit.burst;
      return true;
    }
  }
  return false;
}

bool asks_for_scopes(const LocationPolicy& policy) noexcept {
  return !policy.is_optional && !policy.allows_any_scope && !policy.scope_lines.empty() && policy.dry_run != DryRun::on;
}

bool has_no_line_for(const Site& site, MethodSet methods) noexcept {
  const LocationPolicy& policy = *site.conf.policy;
  return asks_for_scopes(policy) && policy.dry_run != DryRun::scopes && needs_all(site) && !site.conf.is_content &&
         std::none_of(policy.scope_lines.begin(), policy.scope_lines.end(),
                      [=](const ScopeLine& line) { return (line.methods & methods) != 0; });
}

// Parameters are for other proxies, which have to say the method then.
bool is_not_told_the_method(const Site& site) noexcept {
  const LocationPolicy& policy = *site.conf.policy;
  const QuestionConf* question = site.conf.content == on_verify ? site.conf.question : nullptr;
  if (question == nullptr || question->has(QuestionPart::method) || !asks_for_scopes(policy)) {
    return false;
  }
  const bool is_for_proxies = question->trusted != nullptr || question->has(QuestionPart::uri) ||
                              question->has(QuestionPart::host) || question->has(QuestionPart::scheme) ||
                              question->has(QuestionPart::address);
  return is_for_proxies && std::any_of(policy.scope_lines.begin(), policy.scope_lines.end(),
                                       [](const ScopeLine& line) { return line.methods != ~MethodSet{0}; });
}

Reading read_site(ngx_conf_t* cf, const MainConf& main, const Site& site) noexcept {
  Reading reading;
  if (denies_who_has_a_key(cf, site)) {
    reading.bar = Bar::address;
  } else if (asks_twice_of_authorization(cf, site)) {
    reading.bar = Bar::password;
  } else if (costs_more_than_there_is(main, site, reading)) {
    reading.bar = Bar::cost;
  } else if (has_no_line_for(site, site.methods)) {
    reading.bar = Bar::method;
  } else if (is_not_told_the_method(site)) {
    reading.bar = Bar::question;
  }
  return reading;
}

constexpr std::size_t kMethodsText = 128;  // there is room for all of them

// "GET,HEAD"
std::size_t write_methods(MethodSet methods, std::span<u_char> out) noexcept {
  u_char* end = out.data();
  for (MethodSet bit = 1; bit <= kMethodTrace; bit <<= 1U) {
    if ((methods & bit) != 0) {
      const ngx_str_t name = to_ngx_str(method_name(bit));
      end = ngx_slprintf(end, out.data() + out.size(), "%s%V", end == out.data() ? "" : ",", &name);
    }
  }
  return static_cast<std::size_t>(end - out.data());
}

MethodSet methods_of(const LocationPolicy& policy) noexcept {
  MethodSet methods = 0;
  for (const ScopeLine& line : policy.scope_lines) {
    methods |= line.methods;
  }
  return methods;
}

void warn_of_cost(ngx_conf_t* cf, const MainConf& main, const Site& site, const Reading& reading) noexcept {
  const ngx_str_t limit = to_ngx_str(reading.limit.name);
  u_char share[64];
  const bool is_whole = main.share.part == main.share.whole;
  const u_char* end = is_whole ? share
                               : ngx_snprintf(share, sizeof(share), ", share=%uD/%uD of %uL", main.share.part,
                                              main.share.whole, reading.burst);
  ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                     "apikey_cost: every request for \"%V\" is refused: it costs %uL, and a full bucket of limit "
                     "\"%V\" holds %uL%*s; write a burst= in its apikey_limit that is enough, or a smaller cost",
                     &site.conf.location_name, reading.limit.cost, &limit, reading.limit.size,
                     static_cast<std::size_t>(end - share), share);
}

void warn(ngx_conf_t* cf, const MainConf& main, const Site& site, const Reading& reading) noexcept {
  const ngx_str_t& name = site.conf.location_name;
  u_char let_in[kMethodsText];
  u_char asked[kMethodsText];
  switch (reading.bar) {
    case Bar::none:
      return;
    case Bar::address:
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                         "apikey: nobody passes \"%V\": \"deny all\" refuses everybody before a key is asked for; "
                         "write allow before it, satisfy any if a key is enough, or apikey off if it shall be closed",
                         &name);
      return;
    case Bar::password:
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                         "apikey_from: nobody passes \"%V\": the key and the password of auth_basic would both stand "
                         "in Authorization, and a request has one; write apikey_from header:X-API-Key, satisfy any if "
                         "either is enough, or auth_basic off",
                         &name);
      return;
    case Bar::cost:
      warn_of_cost(cf, main, site, reading);
      return;
    case Bar::method:
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                         "apikey_scope: nobody passes \"%V\": limit_except lets %*s get to lines that are for %*s; "
                         "write methods= and limit_except for the same methods",
                         &name, write_methods(site.methods, let_in), let_in,
                         write_methods(methods_of(*site.conf.policy), asked), asked);
      return;
    case Bar::question:
      ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                         "apikey_verify: \"%V\" refuses every key that a proxy asks about: its apikey_scope has "
                         "methods=, and nothing says the method; write method=$<variable> with what the proxy sends, "
                         "such as method=$http_x_forwarded_method",
                         &name);
      return;
  }
}

// Lines of scopes that stand in the limit_except itself.
void warn_of_except(ngx_conf_t* cf, const LocConf& location, const Site& except) noexcept {
  const LocConf& conf = except.conf;
  if (conf.is_on != 1 || conf.scope_lines == location.scope_lines || denies_everybody(*cf->cycle, except.confs) ||
      !has_no_line_for(except, except.methods)) {
    return;
  }
  u_char asked[kMethodsText];
  ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                     "apikey_scope: nobody passes the limit_except in \"%V\": its lines are for %*s, which it is not "
                     "for; write methods= of methods that limit_except does not name, or leave it out",
                     &conf.location_name, write_methods(methods_of(*conf.policy), asked), asked);
}

// What a rewrite, `if` or return does before the access phase is not looked into.
bool may_leave(const ngx_cycle_t& cycle, const LocConf& conf) noexcept {
  return rewrite_codes(cycle, confs_of(conf)) != nullptr || rewrite_codes(cycle, conf.server->ctx->loc_conf) != nullptr;
}

const LocConf* except_in(const ngx_http_core_loc_conf_t& core) noexcept {
  return core.limit_except_loc_conf == nullptr
             ? nullptr
             : static_cast<const LocConf*>(core.limit_except_loc_conf[ngx_http_apikey_module.ctx_index]);
}

// Locations inside, which are an answer to what this one refuses.
bool has_inner_location(const LocConf& conf, const LocConf* except) noexcept {
  for (const LocConf* inner = conf.block.last_inner; inner != nullptr; inner = inner->block.previous_sibling) {
    if (inner != except) {
      return true;
    }
  }
  return false;
}

bool bars_everybody(ngx_conf_t* cf, const MainConf& main, const Site& site) noexcept {
  return (needs_all(site) && denies_everybody(*cf->cycle, site.confs)) ||
         (site.conf.is_on == 1 && read_site(cf, main, site).bar != Bar::none);
}

}  // namespace

void warn_of_barred(ngx_conf_t* cf, const MainConf& main) noexcept {
  for (const LocConf* const conf : elements<LocConf*>(&main.locations)) {
    if (!conf->is_place || may_leave(*cf->cycle, *conf)) {
      continue;
    }
    void** const confs = confs_of(*conf);
    const ngx_http_core_loc_conf_t& core = *core_of(confs);
    const LocConf* const except = except_in(core);
    // A subrequest passes an internal location without being asked.
    if (core.internal != 0 || has_inner_location(*conf, except)) {
      continue;
    }
    const MethodSet here = except == nullptr ? ~MethodSet{0} : our_methods(~core.limit_except);
    const Site site{*conf, confs, here};
    const Reading reading = read_site(cf, main, site);
    if (except == nullptr) {
      warn(cf, main, site, reading);
      continue;
    }
    const Site rest{*except, core.limit_except_loc_conf, ~here};
    if (reading.bar != Bar::none && bars_everybody(cf, main, rest)) {
      warn(cf, main, site, reading);
    } else {
      warn_of_except(cf, *conf, rest);
    }
  }
}

}  // namespace apikey::nginx
