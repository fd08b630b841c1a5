// Where in the configuration a block stands, as a number that tells counters of limits without a name apart.
// Called by nginx while it reads and merges the configuration. Must give two blocks two numbers, and one block the same
// number after a reload, whatever else has changed: so it is made of the texts of the block and of those around it, and
// among blocks of one text in one outer block of its number. Order, comments and other blocks have no part in it.
#include <algorithm>

#include "apikey/siphash.hpp"
#include "ngx_http_apikey_conf.hpp"

namespace apikey::nginx {
namespace {

// Without a secret: nobody but the operator chooses these texts, and the number shall be the same after a restart.
class PlaceHash {
 public:
  void text(std::string_view text) noexcept { hash_.update(std::as_bytes(std::span(text))); }
  void number(std::uint64_t number) noexcept { hash_.update(std::as_bytes(std::span(&number, 1))); }
  // Never 0, which stands for no place.
  [[nodiscard]] std::uint64_t value() noexcept {
    const std::uint64_t hash = hash_.finish();
    return hash == 0 ? 1 : hash;
  }

 private:
  SipHash hash_{SipKey{}};
};

LocConf* loc_conf_in(void** loc_confs) noexcept {
  return static_cast<LocConf*>(loc_confs[ngx_http_apikey_module.ctx_index]);
}

// The block's words without the space between them: `location =/a` and `location = /a` are the same to nginx. Blocks
// that only become equal by this are told apart by their number.
std::uint64_t hash_words(std::span<const ngx_str_t> words) noexcept {
  PlaceHash hash;
  hash.number(words.front().len);
  for (const ngx_str_t& word : words) {
    hash.text(view(word));
  }
  return hash.value();
}

// All other locations of one text in one block are refused by nginx.
bool may_repeat(std::span<const ngx_str_t> words) noexcept {
  return view(words.front()) != "location" || (words.size() > 1 && view(words[1]).starts_with('~'));
}

// A server's addresses, in whatever order they are written.
std::uint64_t sum_of_addresses(const ngx_http_core_main_conf_t& core, const ngx_http_core_srv_conf_t& server) noexcept {
  std::uint64_t sum = 0;
  const auto ports =
      core.ports == nullptr ? std::span<ngx_http_conf_port_t>() : elements<ngx_http_conf_port_t>(core.ports);
  for (const ngx_http_conf_port_t& port : ports) {
    for (ngx_http_conf_addr_t& address : elements<ngx_http_conf_addr_t>(port.addrs)) {
      auto** servers = static_cast<ngx_http_core_srv_conf_t**>(address.servers.elts);
      if (std::find(servers, servers + address.servers.nelts, &server) == servers + address.servers.nelts) {
        continue;
      }
      u_char text[NGX_SOCKADDR_STRLEN];
      PlaceHash hash;
      hash.text(
          {text_of(text), ngx_sock_ntop(address.opt.sockaddr, address.opt.socklen, text, NGX_SOCKADDR_STRLEN, 1)});
      sum += hash.value();
    }
  }
  return sum;
}

std::uint64_t hash_of_server(const ngx_http_core_main_conf_t& core, const ngx_http_core_srv_conf_t& server) noexcept {
  LocConf& conf = *loc_conf_in(server.ctx->loc_conf);
  if (conf.block.server == 0) {
    PlaceHash hash;
    hash.number(sum_of_addresses(core, server));
    hash.text(view(server.server_name));
    conf.block.server = hash.value();
  }
  return conf.block.server;
}

// A server, and its number among those with the same addresses and the same first name.
void add_server(ngx_conf_t* cf, const LocConf& conf, PlaceHash& hash) noexcept {
  const auto& core =
      *static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
  auto** servers = static_cast<ngx_http_core_srv_conf_t**>(core.servers.elts);
  auto** end = servers + core.servers.nelts;
  auto** found = std::find_if(servers, end, [&](const ngx_http_core_srv_conf_t* server) {
    return loc_conf_in(server->ctx->loc_conf) == &conf;
  });
  if (found == end) {
    return hash.number(conf.block.text);
  }
  const std::uint64_t own = hash_of_server(core, **found);
  hash.number(own);
  hash.number(static_cast<std::uint64_t>(std::count_if(
      servers, found, [&](const ngx_http_core_srv_conf_t* server) { return hash_of_server(core, *server) == own; })));
}

void add_inner(const LocConf& conf, PlaceHash& hash) noexcept {
  std::uint64_t number = 0;
  if (conf.block.may_repeat) {
    for (const LocConf* sibling = conf.block.previous_sibling; sibling != nullptr;
         sibling = sibling->block.previous_sibling) {
      number += sibling->block.text == conf.block.text ? 1U : 0U;
    }
  }
  hash.number(conf.block.text);
  hash.number(number);
}

}  // namespace

void note_block(ngx_conf_t* cf, LocConf& conf) noexcept {
  const auto words = elements<const ngx_str_t>(cf->args);
  conf.block.text = hash_words(words);
  conf.block.may_repeat = may_repeat(words);
  conf.is_caseless = words.size() > 1 && view(words[1]).starts_with("~*");
  if (cf->module_type != NGX_HTTP_MODULE) {
    return;
  }
  // nginx is about to read the block: the context is still that of the outer one.
  LocConf* outer = loc_conf_in(static_cast<ngx_http_conf_ctx_t*>(cf->ctx)->loc_conf);
  conf.block.outer = outer;
  conf.block.previous_sibling = outer->block.last_inner;
  outer->block.last_inner = &conf;
}

std::uint64_t place_of(ngx_conf_t* cf, const LocConf& conf) noexcept {
  PlaceHash hash;
  for (const LocConf* block = &conf; block->block.outer != nullptr; block = block->block.outer) {
    if (block->block.outer->block.outer == nullptr) {
      add_server(cf, *block, hash);
    } else {
      add_inner(*block, hash);
    }
  }
  return hash.value();
}

}  // namespace apikey::nginx
