// The tables nginx reads: directives, hooks, the module itself. No logic lives here.
// A directive of one word out of a few has set_choice() and its list of words; all others have a setter of their own
// name in ngx_http_apikey_conf_store.cpp or ngx_http_apikey_conf_location.cpp.
#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_handler.hpp"
#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_reply.hpp"
#include "ngx_http_apikey_saver.hpp"
#include "ngx_http_apikey_vars.hpp"
#include "ngx_http_apikey_worker.hpp"

namespace apikey::nginx {
namespace {

// Policy may be said wherever nginx lets access rules be said, and in an `if` of a location.
constexpr ngx_uint_t kAnywhere =
    NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_HTTP_LIF_CONF | NGX_HTTP_LMT_CONF;

constexpr ngx_uint_t number(auto value) noexcept { return static_cast<ngx_uint_t>(value); }

Choice format_words[] = {{"strict", number(Format::strict)}, {"any", number(Format::any)}, {}};
Choice preflight_words[] = {{"allow", number(Preflight::allow)}, {"check", number(Preflight::check)}, {}};
Choice error_body_words[] = {{"problem", number(ErrorBody::problem)}, {"nginx", number(ErrorBody::nginx)}, {}};
Choice error_detail_words[] = {{"generic", number(ErrorDetail::generic)}, {"holder", number(ErrorDetail::holder)}, {}};
Choice ratelimit_headers_words[] = {{"off", number(RatelimitHeaders::off)},
                                    {"x", number(RatelimitHeaders::x)},
                                    {"draft", number(RatelimitHeaders::draft)},
                                    {}};
Choice dry_run_words[] = {{"off", number(DryRun::off)},
                          {"on", number(DryRun::on)},
                          {"limits", number(DryRun::limits)},
                          {"scopes", number(DryRun::scopes)},
                          {}};
Choice log_level_words[] = {
    {"info", NGX_LOG_INFO}, {"notice", NGX_LOG_NOTICE}, {"warn", NGX_LOG_WARN}, {"error", NGX_LOG_ERR}, {}};

ngx_int_t on_configured(ngx_conf_t* cf) noexcept {
  if (finish_conf(cf) != NGX_OK) {
    return NGX_ERROR;
  }
  const auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_apikey_module));
  if (!main->is_used) {
    return NGX_OK;
  }
  return install_handlers(cf) == NGX_OK ? install_filters(cf) : NGX_ERROR;
}

ngx_command_t commands[] = {
    {ngx_string("apikey_store"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE, set_store, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE, set_zone, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},

    {ngx_string("apikey"), kAnywhere | NGX_CONF_TAKE12, set_apikey, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_use"), kAnywhere | NGX_CONF_TAKE1, set_use, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_from"), kAnywhere | NGX_CONF_1MORE, set_from, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_scope"), kAnywhere | NGX_CONF_1MORE, set_scope, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_environment"), kAnywhere | NGX_CONF_1MORE, set_environment, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("apikey_hide"), kAnywhere | NGX_CONF_1MORE, set_hide, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_format"), kAnywhere | NGX_CONF_TAKE1, set_choice, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, format), format_words},
    {ngx_string("apikey_preflight"), kAnywhere | NGX_CONF_TAKE1, set_choice, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, preflight), preflight_words},
    {ngx_string("apikey_error_body"), kAnywhere | NGX_CONF_TAKE1, set_choice, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, error_body), error_body_words},
    {ngx_string("apikey_error_detail"), kAnywhere | NGX_CONF_TAKE1, set_choice, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, error_detail), error_detail_words},
    {ngx_string("apikey_log_level"), kAnywhere | NGX_CONF_TAKE1, set_choice, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, log_level), log_level_words},
    {ngx_string("apikey_ratelimit_headers"), kAnywhere | NGX_CONF_TAKE1, set_choice, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, ratelimit_headers), ratelimit_headers_words},
    {ngx_string("apikey_limit"), kAnywhere | NGX_CONF_1MORE, set_limit, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_concurrency"), kAnywhere | NGX_CONF_1MORE, set_concurrency, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("apikey_fail_limit"), kAnywhere | NGX_CONF_1MORE, set_fail_limit, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_dry_run"), kAnywhere | NGX_CONF_TAKE1, set_choice, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, dry_run), dry_run_words},

    {ngx_string("apikey_cost"), kAnywhere | NGX_CONF_1MORE, set_cost, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_refund"), kAnywhere | NGX_CONF_1MORE, set_refund, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("apikey_metrics"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, set_metrics, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("apikey_usage"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, set_usage, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_verify"), NGX_HTTP_LOC_CONF | NGX_CONF_ANY, set_verify, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    {ngx_string("apikey_whoami"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, set_whoami, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},

    ngx_null_command};

ngx_http_module_t module_context = {
    add_variables,     // preconfiguration
    on_configured,     // postconfiguration
    create_main_conf,  // create main configuration
    init_main_conf,    // init main configuration
    create_srv_conf,   // create server configuration
    nullptr,           // merge server configuration
    create_loc_conf,   // create location configuration
    merge_loc_conf,    // merge location configuration
};

}  // namespace
}  // namespace apikey::nginx

ngx_module_t ngx_http_apikey_module = {
    NGX_MODULE_V1,
    &apikey::nginx::module_context,
    apikey::nginx::commands,
    NGX_HTTP_MODULE,
    nullptr,                         // init master
    apikey::nginx::on_init_module,   // init module
    apikey::nginx::on_init_process,  // init process
    nullptr,                         // init thread
    nullptr,                         // exit thread
    apikey::nginx::on_exit_process,  // exit process
    apikey::nginx::on_exit_master,   // exit master
    NGX_MODULE_V1_PADDING,
};
