// The directives of the http level: apikey_store (one snapshot and how it is served), apikey_use (which of them), and
// apikey_zone (the shared memory). Called by nginx while it reads the configuration.
// Never looks at the snapshot itself: it may appear later, and `nginx -t` must not depend on it.
#include <array>

#include "ngx_http_apikey_conf.hpp"
#include "ngx_http_apikey_node.hpp"
#include "ngx_http_apikey_store.hpp"
#include "ngx_http_apikey_zone.hpp"

namespace apikey::nginx {
namespace {

constexpr std::string_view kShareKey = "share=";
constexpr std::string_view kStateKey = "state=";
constexpr std::string_view kRuntimeKey = "runtime=";
constexpr ngx_int_t kLargestShare = 1000;

constexpr std::string_view kDefaultStoreName = "default";
constexpr std::size_t kMaxStoreNameLength = 64;
constexpr std::size_t kMinZoneSize = std::size_t{1} << 20;

bool is_store_name(std::string_view name) noexcept {
  return !name.empty() && name.size() <= kMaxStoreNameLength &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_-") == std::string_view::npos;
}

// The result of one `key=value`: understood, not understood (the caller says what would be), or already complained of.
enum class Parsed { ok, unknown, reported };

// True when `value` is one of two words; then `is_second` says which.
bool parse_pair(std::string_view value, std::string_view first, std::string_view second, bool& is_second) noexcept {
  is_second = value == second;
  return is_second || value == first;
}

Parsed parse_name(ngx_conf_t*, MainConf&, StoreConf& store, ngx_str_t value) noexcept {
  store.name = value;
  return is_store_name(view(value)) ? Parsed::ok : Parsed::unknown;
}

Parsed parse_pepper(ngx_conf_t* cf, MainConf& main, StoreConf& store, ngx_str_t value) noexcept {
  return add_pepper(cf, main, store, value) == NGX_CONF_OK ? Parsed::ok : Parsed::reported;
}

Parsed parse_memory(ngx_conf_t*, MainConf&, StoreConf& store, ngx_str_t value) noexcept {
  return parse_pair(view(value), "private", "mapped", store.is_mapped) ? Parsed::ok : Parsed::unknown;
}

Parsed parse_max_age(ngx_conf_t*, MainConf&, StoreConf& store, ngx_str_t value) noexcept {
  const ngx_int_t seconds = ngx_parse_time(&value, 1);
  store.max_age = seconds;
  return seconds > 0 ? Parsed::ok : Parsed::unknown;
}

Parsed parse_on_stale(ngx_conf_t*, MainConf&, StoreConf& store, ngx_str_t value) noexcept {
  return parse_pair(view(value), "serve", "deny", store.denies_when_stale) ? Parsed::ok : Parsed::unknown;
}

Parsed parse_min_keep(ngx_conf_t*, MainConf&, StoreConf& store, ngx_str_t value) noexcept {
  if (value.len < 2 || value.data[value.len - 1] != '%') {
    return Parsed::unknown;
  }
  const ngx_int_t percent = ngx_atoi(value.data, value.len - 1);
  if (percent < 0 || percent > 100) {
    return Parsed::unknown;
  }
  store.min_keep_percent = static_cast<ngx_uint_t>(percent);
  return Parsed::ok;
}

Parsed parse_on_error(ngx_conf_t*, MainConf&, StoreConf& store, ngx_str_t value) noexcept {
  return parse_pair(view(value), "deny", "allow", store.allows_on_error) ? Parsed::ok : Parsed::unknown;
}

Parsed parse_lookup(ngx_conf_t*, MainConf&, StoreConf& store, ngx_str_t value) noexcept {
  bool is_btree = false;
  const bool is_known = parse_pair(view(value), "index", "btree", is_btree);
  store.lookup = is_btree ? Lookup::btree : Lookup::index;
  return is_known ? Parsed::ok : Parsed::unknown;
}

Parsed refuse_verify_key(ngx_conf_t* cf, MainConf&, StoreConf&, ngx_str_t value) noexcept {
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                     "apikey_store: \"verify_key=%V\" is not supported, this version does not check signatures; "
                     "remove it",
                     &value);
  return Parsed::reported;
}

struct Parameter {
  std::string_view key;  // with its '='
  Parsed (*parse)(ngx_conf_t* cf, MainConf& main, StoreConf& store, ngx_str_t value) noexcept;
  bool may_repeat;
  std::string_view remedy;  // follows "write"
};

constexpr std::array kParameters = {
    Parameter{"name=", parse_name, false, "name=<name> with 1 to 64 characters of a-z, 0-9, _ and -"},
    Parameter{"pepper=", parse_pepper, true, "pepper=<id>:<file>"},
    Parameter{"verify_key=", refuse_verify_key, true, ""},
    Parameter{"memory=", parse_memory, false, "memory=private or memory=mapped"},
    Parameter{"max_age=", parse_max_age, false, "max_age=<time> above zero, such as max_age=36h, or leave it out"},
    Parameter{"on_stale=", parse_on_stale, false, "on_stale=serve or on_stale=deny"},
    Parameter{"min_keep=", parse_min_keep, false, "min_keep=<n>% with n from 0 to 100, such as min_keep=50%"},
    Parameter{"on_error=", parse_on_error, false, "on_error=deny or on_error=allow"},
    Parameter{"lookup=", parse_lookup, false, "lookup=index or lookup=btree"},
};

char* parse_parameter(ngx_conf_t* cf, MainConf& main, StoreConf& store, const ngx_str_t& text,
                      unsigned& seen) noexcept {
  for (std::size_t i = 0; i < kParameters.size(); ++i) {
    const Parameter& parameter = kParameters[i];
    if (!view(text).starts_with(parameter.key)) {
      continue;
    }
    if (!parameter.may_repeat && (seen & (1U << i)) != 0) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_store: \"%V\" is the second of its kind, write one", &text);
      return conf_error();
    }
    seen |= 1U << i;
    const ngx_str_t value{text.len - parameter.key.size(), text.data + parameter.key.size()};
    const Parsed parsed = parameter.parse(cf, main, store, value);
    if (parsed == Parsed::unknown) {
      const ngx_str_t remedy = to_ngx_str(parameter.remedy);
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_store: \"%V\" is not known, write %V", &text, &remedy);
    }
    return parsed == Parsed::ok ? NGX_CONF_OK : conf_error();
  }
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                     "apikey_store: parameter \"%V\" is not known, write name=, pepper=, memory=, max_age=, on_stale=, "
                     "min_keep=, on_error= or lookup=",
                     &text);
  return conf_error();
}

// An absolute path of a file, made of what the first argument says.
char* parse_path(ngx_conf_t* cf, StoreConf& store, const ngx_str_t& text) noexcept {
  if (text.len == 0 || text.data[text.len - 1] == '/') {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_store: \"%V\" is not a file, write the path of a snapshot such as "
                       "/var/lib/apikey/keys.mdb",
                       &text);
    return conf_error();
  }
  store.path = text;
  return ngx_conf_full_name(cf->cycle, &store.path, 1) == NGX_OK ? NGX_CONF_OK : conf_error();
}

// What two lines together get wrong.
char* check_others(ngx_conf_t* cf, const MainConf& main, const StoreConf& store) noexcept {
  auto* const* others = static_cast<StoreConf**>(main.stores.elts);
  for (ngx_uint_t i = 0; i < main.stores.nelts; ++i) {
    if (view(others[i]->name) == view(store.name)) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                         "apikey_store: name \"%V\" is already that of \"%V\", give each store a name= of its own",
                         &store.name, &others[i]->path);
      return conf_error();
    }
    if (view(others[i]->path) == view(store.path)) {
      ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                         "apikey_store: \"%V\" is already the store \"%V\", use that one (apikey_use %V)", &store.path,
                         &others[i]->name, &others[i]->name);
      return conf_error();
    }
  }
  if (main.stores.nelts == kMaxStores) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_store: \"%V\" is one too many, there may be %ui stores",
                       &store.path, kMaxStores);
    return conf_error();
  }
  return NGX_CONF_OK;
}

StoreConf* make_store(ngx_conf_t* cf) noexcept {
  auto* store = pool_new<StoreConf>(cf->pool);
  if (store == nullptr) {
    return nullptr;
  }
  store->name = to_ngx_str(kDefaultStoreName);
  store->min_keep_percent = 50;
  store->methods[0] = 0;
  store->method_count = 1;
  store->runtime = make_store_runtime(cf->pool);
  return store->runtime == nullptr ? nullptr : store;
}

// `share=1/3`: this node's part of every limit.
char* parse_share(ngx_conf_t* cf, MainConf& main, const ngx_str_t& text) noexcept {
  const ngx_str_t value{text.len - kShareKey.size(), text.data + kShareKey.size()};
  const std::size_t slash = view(value).find('/');
  if (slash != std::string_view::npos) {
    const ngx_int_t part = ngx_atoi(value.data, slash);
    const ngx_int_t whole = ngx_atoi(value.data + slash + 1, value.len - slash - 1);
    if (part >= 1 && whole >= part && whole <= kLargestShare) {
      main.share = {static_cast<std::uint32_t>(part), static_cast<std::uint32_t>(whole)};
      return NGX_CONF_OK;
    }
  }
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                     "apikey_zone: \"%V\" is no part of a whole, write share=<n>/<m> with 1 <= n <= m <= %i, such as "
                     "share=1/3 on each of three nodes",
                     &text, kLargestShare);
  return conf_error();
}

// A zero-terminated path of a file in the directory. RETURNS: an empty text without memory.
ngx_str_t path_in(ngx_pool_t* pool, const ngx_str_t& directory, const ngx_str_t& name, const char* ending) noexcept {
  ngx_str_t path{0, static_cast<u_char*>(ngx_pnalloc(pool, directory.len + name.len + ngx_strlen(ending) + 2))};
  if (path.data != nullptr) {
    u_char* end = ngx_sprintf(path.data, "%V/%V%s", &directory, &name, ending);
    *end = '\0';
    path.len = static_cast<std::size_t>(end - path.data);
  }
  return path;
}

// state=<dir>: whether it is there, and may be written, shows when a worker writes.
char* parse_state(ngx_conf_t* cf, MainConf& main, std::string_view zone_name, const ngx_str_t& text) noexcept {
  CheckpointConf& place = main.checkpoint;
  if (place.directory.len != 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_zone: \"%V\" is the second of its kind, write one", &text);
    return conf_error();
  }
  place.directory = {text.len - kStateKey.size(), text.data + kStateKey.size()};
  if (place.directory.len == 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_zone: \"%V\" names no directory, write state=<directory>, such as "
                       "state=/var/lib/nginx-apikey",
                       &text);
    return conf_error();
  }
  if (ngx_conf_full_name(cf->cycle, &place.directory, 0) != NGX_OK) {
    return conf_error();
  }
  const ngx_str_t name = file_name_of(cf->pool, zone_name);
  place.path = path_in(cf->pool, place.directory, name, ".checkpoint");
  place.next = path_in(cf->pool, place.directory, name, ".checkpoint.next");
  return name.len == 0 || place.path.len == 0 || place.next.len == 0 ? conf_error() : NGX_CONF_OK;
}

// runtime=<dir>: judged when it is opened.
char* parse_runtime(ngx_conf_t* cf, MainConf& main, const ngx_str_t& text) noexcept {
  if (main.runtime.len != 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_zone: \"%V\" is the second of its kind, write one", &text);
    return conf_error();
  }
  main.runtime = {text.len - kRuntimeKey.size(), text.data + kRuntimeKey.size()};
  if (main.runtime.len == 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_zone: \"%V\" names no directory, write runtime=<directory>, such as "
                       "runtime=/run/apikey-second",
                       &text);
    return conf_error();
  }
  return ngx_conf_full_name(cf->cycle, &main.runtime, 0) == NGX_OK ? NGX_CONF_OK : conf_error();
}

char* parse_zone_parameter(ngx_conf_t* cf, MainConf& main, std::string_view zone_name, const ngx_str_t& text) noexcept {
  if (view(text).starts_with(kShareKey)) {
    return parse_share(cf, main, text);
  }
  if (view(text).starts_with(kStateKey)) {
    return parse_state(cf, main, zone_name, text);
  }
  if (view(text).starts_with(kRuntimeKey)) {
    return parse_runtime(cf, main, text);
  }
  ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                     "apikey_zone: parameter \"%V\" is not known, write state=<directory>, runtime=<directory> or "
                     "share=<n>/<m>",
                     &text);
  return conf_error();
}

}  // namespace

StoreConf* find_store(const MainConf& main, std::string_view name) noexcept {
  auto* const* stores = static_cast<StoreConf**>(main.stores.elts);
  const std::string_view wanted = name.empty() ? kDefaultStoreName : name;
  for (ngx_uint_t i = 0; i < main.stores.nelts; ++i) {
    if (view(stores[i]->name) == wanted) {
      return stores[i];
    }
  }
  return name.empty() && main.stores.nelts == 1 ? stores[0] : nullptr;
}

char* set_store(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& main = *static_cast<MainConf*>(conf);
  const auto args = arguments(cf);
  StoreConf* store = make_store(cf);
  if (store == nullptr || parse_path(cf, *store, args[0]) != NGX_CONF_OK) {
    return conf_error();
  }
  unsigned seen = 0;
  for (const ngx_str_t& text : args.subspan(1)) {
    if (parse_parameter(cf, main, *store, text, seen) != NGX_CONF_OK) {
      return conf_error();
    }
  }
  if (store->denies_when_stale && store->max_age == 0) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_store: \"on_stale=deny\" has no effect without an age, add max_age=<time>");
    return conf_error();
  }
  if (check_others(cf, main, *store) != NGX_CONF_OK) {
    return conf_error();
  }
  auto** place = push_to<StoreConf*>(&main.stores);
  if (place == nullptr) {
    return conf_error();
  }
  store->index = main.stores.nelts - 1;
  main.has_mapped_store = main.has_mapped_store || store->is_mapped;
  *place = store;
  return NGX_CONF_OK;
}

char* set_use(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& location = *static_cast<LocConf*>(conf);
  const ngx_str_t& name = arguments(cf)[0];
  if (location.store_name.data != nullptr) {
    return duplicate();
  }
  if (!is_store_name(view(name))) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_use: \"%V\" is not a name, write the name= of an apikey_store (a-z, 0-9, _ and -)",
                       &name);
    return conf_error();
  }
  location.store_name = name;
  return NGX_CONF_OK;
}

char* set_zone(ngx_conf_t* cf, ngx_command_t*, void* conf) noexcept {
  auto& main = *static_cast<MainConf*>(conf);
  const auto args = arguments(cf);
  if (main.zone != nullptr) {
    return duplicate();
  }
  constexpr std::string_view key = "zone=";
  const std::string_view text = view(args[0]);
  const std::size_t colon = text.rfind(':');
  if (!text.starts_with(key) || colon == std::string_view::npos || colon <= key.size() || colon + 1 == text.size()) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "apikey_zone: \"%V\" is not known, write zone=<name>:<size>, such as zone=apikey:16m", &args[0]);
    return conf_error();
  }
  ngx_str_t name{colon - key.size(), args[0].data + key.size()};
  ngx_str_t size_text{text.size() - colon - 1, args[0].data + colon + 1};
  const ssize_t size = ngx_parse_size(&size_text);
  if (size == NGX_ERROR || static_cast<std::size_t>(size) < kMinZoneSize) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "apikey_zone: size \"%V\" is not one of at least 1m, such as 16m",
                       &size_text);
    return conf_error();
  }
  for (const ngx_str_t& parameter : args.subspan(1)) {
    if (parse_zone_parameter(cf, main, view(name), parameter) != NGX_CONF_OK) {
      return conf_error();
    }
  }
  main.zone = add_zone(cf, &name, static_cast<std::size_t>(size));
  return main.zone == nullptr ? conf_error() : NGX_CONF_OK;
}

}  // namespace apikey::nginx
