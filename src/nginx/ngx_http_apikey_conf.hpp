// What the configuration says: structures, their creation and merging, and the directive setters.
// Filled by the master while it reads the configuration, read-only afterwards.
//   _conf.cpp           creation, merging, what is checked when all is read
//   _conf_store.cpp     apikey_store, apikey_use, apikey_zone
//   _conf_pepper.cpp    pepper=<id>:<file> → MainConf::methods
//   _conf_location.cpp  everything that may stand in a location
//   _conf_source.cpp    apikey_from
//   _conf_place.cpp     where in the configuration a limit without a name stands
//   _conf_limit.cpp     apikey_limit, apikey_concurrency, apikey_fail_limit
//   _conf_cost.cpp      apikey_cost, apikey_refund
//   _conf_hide.cpp      apikey_hide, and what is hidden where
//   _conf_verify.cpp    apikey_verify
//   _policies.cpp       what all locations ask for, for node memory
#pragma once

#include <cstdint>

#include "apikey/authenticator.hpp"
#include "apikey/credential.hpp"
#include "apikey/digest.hpp"
#include "apikey/snapshot.hpp"
#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

inline constexpr ngx_uint_t kMaxStores = 16;
inline constexpr std::string_view kDefaultZoneName = "apikey";
inline constexpr std::size_t kDefaultZoneSize = 16U << 20;

struct StoreRuntime;    // ngx_http_apikey_store.hpp: what this process has open
struct HiddenVariable;  // ngx_http_apikey_pseudonym.hpp

// One apikey_store line.
struct StoreConf {
  ngx_str_t name;  // "default" when none is written
  ngx_str_t path;  // absolute, zero-terminated
  ngx_uint_t index;
  time_t max_age;  // seconds, 0 = off
  ngx_uint_t min_keep_percent;
  bool is_mapped;
  bool denies_when_stale;
  bool allows_on_error;
  Lookup lookup;
  // Indexes into MainConf::methods this store may use: plain SHA-256 and its peppers.
  std::uint8_t methods[kMaxConfiguredMethods];
  ngx_uint_t method_count;
  StoreRuntime* runtime;  // made at configuration time, empty until a worker fills it
};

// What apikey_zone's state= means. All zero-terminated; empty without state=.
struct CheckpointConf {
  ngx_str_t directory;
  ngx_str_t path;
  ngx_str_t next;  // beside it, while it is written
};

// A source of a name that nginx passes on only with a setting of its own.
struct DroppedHeader {
  const ngx_http_core_srv_conf_t* server;
  ngx_str_t name;
  ngx_str_t location;
};

struct Node;  // ngx_http_apikey_node.hpp: the memory that outlives nginx

struct LocConf;

// A server or a location, with apikey or without, for what node memory says of them.
struct PolicySite {
  const LocConf* location;
  const ngx_http_core_loc_conf_t* core;
  const ngx_http_core_loc_conf_t* outer;  // null: it is the server itself
  const ngx_http_core_srv_conf_t* server;
  std::uint8_t depth;  // 0: the server itself
};

struct MainConf {
  ngx_array_t stores;     // StoreConf*
  DigestMethod* methods;  // [kMaxConfiguredMethods], the first method_count in use; [0] is plain SHA-256
  ngx_uint_t method_count;
  ngx_shm_zone_t* zone;
  CheckpointConf checkpoint;
  ngx_str_t runtime;     // directory of node memory, zero-terminated; empty: not written
  Node* node;            // null under `nginx -t`
  ngx_int_t request_id;  // index of $request_id
  Share share;           // of apikey_zone
  bool is_used;          // some location says `apikey <realm>`
  bool has_mapped_store;
  bool has_metrics;                     // some location says `apikey_metrics` or `apikey_usage`
  bool meets_debug_log;                 // some location with apikey writes a log at debug
  bool cleans_lines;                    // some hidden source is in the URI: request lines and redirects are cleaned
  ngx_array_t locations;                // LocConf*: all with apikey
  ngx_array_t unscoped;                 // LocConf*: locations that let every valid key in without saying so
  ngx_array_t named_limits;             // LimitConf: all that have a name of their own
  ngx_array_t settled_measures;         // std::string_view: of all costs that a response settles; each once
  ngx_array_t answering;                // ngx_http_core_srv_conf_t*: servers with a location that we answer in
  ngx_array_t own_sockets;              // ngx_str_t: paths of the unix sockets these listen on, zero-terminated
  ngx_array_t dropped_headers;          // DroppedHeader: each once per server
  ngx_array_t hiding;                   // HidingLocation: all with apikey that hide the key
  ngx_array_t hidden_variables;         // HiddenVariable*
  const HiddenVariable* hidden_user;    // $remote_user; null: no hidden source is Basic
  ngx_array_t* default_sources;         // Source: what apikey_from means where it is not written
  ngx_array_t sites;                    // PolicySite: every server and location, in the order they are merged
  std::span<const std::byte> policies;  // what all of them ask for, as node memory has it; empty under `nginx -t`
};

// One of the words a directive takes; `post` of its command points to the first of a list that ends with an empty word.
struct Choice {
  std::string_view word;
  ngx_uint_t value;
};

struct Source {
  SourceKind kind;
  ngx_str_t name;      // of a header (lower case), scheme, argument or cookie; the prefix of a protocol
  ngx_int_t variable;  // index of the variable; NGX_ERROR: it names a place, and is asked by its name
  // Of a variable that names a place in the request ($http_…, $arg_…, $cookie_…): that place; null for every other.
  Source* place = nullptr;
  ngx_uint_t hash = 0;                    // of the variable's name
  bool is_any_dash = false;               // a header by the name of its variable: `-` and `_` are one
  const HiddenVariable* named = nullptr;  // nginx's variable for this place, where it is hidden
};

struct LocConf;

// Where a key is hidden, and in which server.
struct HidingLocation {
  LocConf* location;
  const ngx_http_core_srv_conf_t* server;
};

// What the servers of a port hide. A server that shares its ports with others has what all of them hide.
struct SrvConf {
  ngx_array_t hidden;          // LocConf*: one for each list of sources and format
  ngx_array_t argument_names;  // std::string_view: query sources and $arg_… among them
  bool takes_from_line;        // one of them may be in the URI …
  bool takes_from_path;        // … even in its path
};

enum class ErrorBody : ngx_uint_t { problem, nginx };
enum class ErrorDetail : ngx_uint_t { generic, holder };
enum class Preflight : ngx_uint_t { allow, check };
enum class RatelimitHeaders : ngx_uint_t { off, x, draft };

// An apikey_limit or apikey_concurrency line.
struct LimitConf {
  PolicyLimit policy;
  bool has_by = false;
  bool has_name = false;
  ngx_int_t variable = NGX_ERROR;  // index of the variable of by=
  bool is_address = false;         // $remote_addr or $binary_remote_addr
};

// The variable of a by=. nginx keeps the first value of an address that anybody asked for, though realip may change the
// address after that: such a variable is read again when it counts.
struct LimitVariable {
  ngx_uint_t index;
  bool is_address;
};

struct LocConf;

// A block of the configuration: http, a server, a location, an `if`, a limit_except.
struct Block {
  LocConf* outer;             // null: http, or not a block that nginx's http module reads
  LocConf* last_inner;        // the one read last; the others follow by previous_sibling
  LocConf* previous_sibling;  // in the same outer block
  std::uint64_t text;         // hash of what it is: `location ~ ^/v1`, `if ($slow)`
  bool may_repeat;            // nginx takes several of the same text in one block
  std::uint64_t server;       // of a server: hash of its addresses and first name, 0: not known yet
};

struct QuestionConf;  // ngx_http_apikey_question.hpp

struct LocConf {
  Block block;
  ngx_flag_t is_on;  // unset until merged
  ngx_flag_t is_optional;
  ngx_str_t realm;           // already quoted for a header: no control characters, '"' and '\' escaped
  ngx_str_t store_name;      // as apikey_use says
  StoreConf* store;          // resolved when merged; null only where apikey is off
  ngx_array_t* sources;      // Source
  ngx_uint_t format;         // Format
  ngx_array_t* scope_lines;  // ScopeLine
  ngx_flag_t any_scope;
  ngx_array_t* environments;  // std::string_view
  ngx_flag_t any_environment;
  ngx_flag_t hides;
  ngx_flag_t keeps_redirects;    // of apikey_hide: redirects=keep
  ngx_array_t* before_hiding;    // ngx_int_t: variables of its before=; null: none
  ngx_flag_t takes_from_line;    // a source may be in the URI; made when merged
  ngx_array_t* argument_names;   // std::string_view: arguments that are sources here; made when merged
  ngx_uint_t preflight;          // Preflight
  ngx_uint_t error_body;         // ErrorBody
  ngx_uint_t error_detail;       // ErrorDetail
  ngx_uint_t log_level;          // NGX_LOG_*
  ngx_uint_t ratelimit_headers;  // RatelimitHeaders
  ngx_str_t location_name;       // for messages: `/orders`, or `server api.example.com` outside of any location
  ngx_array_t* limits;           // LimitConf: apikey_limit rate=
  ngx_array_t* required_limits;  // std::string_view
  ngx_array_t* concurrency;      // LimitConf
  ngx_flag_t has_fail_limit;
  FailLimit fail_limit;
  ngx_uint_t dry_run;              // DryRun
  LimitVariable* limit_variables;  // of by=$variable, made when merged
  ngx_uint_t limit_variable_count;
  ngx_array_t* cost_lines;       // CostLine
  ngx_array_t* refund_statuses;  // ngx_uint_t
  LocationPolicy* policy;        // what decide() is given; made when merged
  ngx_str_t challenge;           // WWW-Authenticate when nothing was sent; `Bearer` stands last in it
  bool accepts_bearer;
  void** loc_confs;                  // of all modules, where this one's is
  ngx_http_core_srv_conf_t* server;  // likewise
  bool is_place;                     // a location that requests get to, and that is named in messages
  bool is_content;                   // apikey_verify or apikey_whoami decides here itself
  ngx_uint_t verify_status;          // of apikey_verify, when it lets in
  QuestionConf* question;            // what apikey_verify is told of the original request; null: nothing
  ngx_http_handler_pt content;       // of apikey_metrics, apikey_usage, … written here; null: none
  bool is_caseless;                  // `location ~*`
  bool meets_debug_log;              // nginx writes headers of its requests to an error log at debug level
};
static_assert(std::is_standard_layout_v<LocConf> && std::is_trivially_destructible_v<LocConf>);
static_assert(std::is_standard_layout_v<MainConf> && std::is_trivially_destructible_v<MainConf>);

inline MainConf* main_conf(ngx_http_request_t* r) noexcept {
  return static_cast<MainConf*>(ngx_http_get_module_main_conf(r, ngx_http_apikey_module));
}
inline MainConf* main_conf(ngx_cycle_t* cycle) noexcept {
  return static_cast<MainConf*>(ngx_http_cycle_get_module_main_conf(cycle, ngx_http_apikey_module));
}
inline SrvConf* srv_conf(ngx_http_request_t* r) noexcept {
  return static_cast<SrvConf*>(ngx_http_get_module_srv_conf(r, ngx_http_apikey_module));
}
inline LocConf* loc_conf(ngx_http_request_t* r) noexcept {
  return static_cast<LocConf*>(ngx_http_get_module_loc_conf(r, ngx_http_apikey_module));
}

void* create_main_conf(ngx_conf_t* cf) noexcept;
char* init_main_conf(ngx_conf_t* cf, void* conf) noexcept;
void* create_srv_conf(ngx_conf_t* cf) noexcept;
void* create_loc_conf(ngx_conf_t* cf) noexcept;
char* merge_loc_conf(ngx_conf_t* cf, void* parent, void* child) noexcept;

// After all is read: makes the default zone, warns once of locations without scopes and of debug logs.
ngx_int_t finish_conf(ngx_conf_t* cf) noexcept;
// Warnings of finish_conf(): ngx_http_apikey_conf_files.cpp.
void warn_of_files(ngx_conf_t* cf, const MainConf& main) noexcept;
void warn_of_returns(ngx_conf_t* cf, const MainConf& main) noexcept;
void warn_of_barred(ngx_conf_t* cf, const MainConf& main) noexcept;  // ngx_http_apikey_conf_barred.cpp

// The store that a location means: the one of that name; for an empty name the one called "default", else the only one.
// RETURNS: null when there is none.
StoreConf* find_store(const MainConf& main, std::string_view name) noexcept;
// Reads `<id>:<file>` and adds its method to the store's, and to MainConf::methods when it is new there.
// RETURNS: NGX_CONF_OK, or an error that has been logged.
char* add_pepper(ngx_conf_t* cf, MainConf& main, StoreConf& store, ngx_str_t value) noexcept;

// Remembers which block is being read. Called by create_loc_conf(), while nginx still holds the block's own words.
void note_block(ngx_conf_t* cf, LocConf& conf) noexcept;
// Where this block stands: the same number after every reload that leaves the block where it is. It depends on the
// block, on what is around it and on nothing else. REQUIRES: called while nginx merges the server the block is in.
std::uint64_t place_of(ngx_conf_t* cf, const LocConf& conf) noexcept;

// Gives the limits that are written in this block their place. REQUIRES: before they are merged.
void place_limits(ngx_conf_t* cf, LocConf& conf) noexcept;
// For a `$variable` source: fills `place` when the variable names one. RETURNS: false without memory.
bool find_place(ngx_conf_t* cf, Source& source) noexcept;
void merge_hiding(LocConf& conf, const LocConf& outer) noexcept;
// For every location with apikey, once merged. RETURNS: false without memory.
bool note_hiding(ngx_conf_t* cf, MainConf& main, LocConf& conf) noexcept;
// When all is read: what each port hides, and what `nginx -t` says of it.
ngx_int_t finish_hiding(ngx_conf_t* cf, MainConf& main) noexcept;
// For every location: remembers what check_dropped_headers() judges when all servers are known. RETURNS: false without
// memory.
bool note_dropped_headers(ngx_conf_t* cf, MainConf& main, const LocConf& conf) noexcept;
ngx_int_t check_dropped_headers(ngx_conf_t* cf, const MainConf& main) noexcept;

void merge_limits(LocConf& conf, const LocConf& outer) noexcept;
// Puts the limits of a merged location into its policy. RETURNS: NGX_CONF_OK, or an error that has been logged.
char* make_limit_policy(ngx_conf_t* cf, LocConf& conf, LocationPolicy& policy) noexcept;
void merge_costs(LocConf& conf, const LocConf& outer) noexcept;
// Finds out what is counted in some locations of a store only, and lists where it is not. REQUIRES: all is merged.
ngx_int_t finish_measures(ngx_conf_t* cf, MainConf& main) noexcept;
// Refuses an apikey_verify that believes whoever asks. REQUIRES: all is merged.
ngx_int_t check_questions(ngx_conf_t* cf, const MainConf& main) noexcept;

// Directive setters, one per directive of the same name.
// set_choice serves all whose value is one of a few words.
char* set_choice(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_store(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_use(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_zone(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_apikey(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_from(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_hide(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_scope(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_environment(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_limit(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_concurrency(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_fail_limit(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_cost(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_refund(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_metrics(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_usage(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
// Makes a directive answer in its location, for those whose content is ours.
char* set_content(ngx_conf_t* cf, ngx_command_t* cmd, LocConf& location, ngx_http_handler_pt handler) noexcept;
char* set_verify(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;
char* set_whoami(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) noexcept;

}  // namespace apikey::nginx
