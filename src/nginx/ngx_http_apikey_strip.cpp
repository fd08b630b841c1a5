// Takes lines out of the client request, and out of the copies that its subrequests have of the list.
// Must leave a connection from which the body was not read to be closed: what is still to come is not another request.
#include "ngx_http_apikey_strip.hpp"

#include <array>

#include "ngx_http_apikey_header_list.hpp"

namespace apikey::nginx {
namespace {

constexpr std::array<std::string_view, 2> kPartHeaders = {"range", "if_range"};
constexpr std::array<std::string_view, 3> kMethodHeaders = {"x_http_method_override", "x_http_method",
                                                            "x_method_override"};
constexpr std::array<std::string_view, 2> kBodyHeaders = {"content_length", "transfer_encoding"};

ngx_table_elt_t* find_alike(ngx_http_request_t* r, std::string_view name) noexcept {
  for (ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
    for (ngx_table_elt_t& line : elements<ngx_table_elt_t>(part)) {
      if (line.hash != 0 && is_alike(line, name)) {
        return &line;
      }
    }
  }
  return nullptr;
}

// From the subrequest up to the client request: each has a list of its own that shares the lines.
bool remove_everywhere(ngx_http_request_t* r, ngx_table_elt_t* line) noexcept {
  for (ngx_http_request_t* each = r; each != nullptr; each = each->parent) {
    if (!remove_header(each, line)) {
      return false;
    }
    if (each == r->main) {
      break;
    }
  }
  return true;
}

bool remove_lines(ngx_http_request_t* r, std::span<const std::string_view> names) noexcept {
  for (const std::string_view name : names) {
    while (ngx_table_elt_t* line = find_alike(r->main, name)) {
      if (!remove_everywhere(r, line)) {
        return false;
      }
    }
  }
  return true;
}

bool has_body(const ngx_http_request_t* r) noexcept {
  return r->headers_in.content_length_n > 0 || r->headers_in.chunked != 0;
}

}  // namespace

bool ask_for_whole(ngx_http_request_t* r) noexcept { return remove_lines(r, kPartHeaders); }

bool strip_preflight(ngx_http_request_t* r) noexcept {
  if (!remove_lines(r, kMethodHeaders)) {
    return false;
  }
  if (!has_body(r->main)) {
    return true;
  }
  if (!remove_lines(r, kBodyHeaders)) {
    return false;
  }
  // As asked: a subrequest has a copy of headers_in.
  for (ngx_http_request_t* each : {r, r->main}) {
    each->headers_in.content_length_n = -1;
    each->headers_in.chunked = 0;
  }
  r->main->keepalive = 0;
  r->main->lingering_close = 1;
  return true;
}

}  // namespace apikey::nginx
