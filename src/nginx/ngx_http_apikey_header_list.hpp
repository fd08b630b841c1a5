// The request's header list: finding lines and taking one out.
// Called by _request (find) and _hide (remove). Other modules keep pointers to elements of the list, so no element is
// ever moved.
#pragma once

#include "ngx_http_apikey_ngx.hpp"

namespace apikey::nginx {

// Iterates over the lines of one (lower-case) name, or over all for an empty one.
//   for (HeaderLines lines(r, "cookie"); ngx_table_elt_t* line = lines.next();) …
class HeaderLines {
 public:
  HeaderLines(ngx_http_request_t* r, std::string_view name) noexcept
      : part_(&r->headers_in.headers.part), name_(name) {}
  ngx_table_elt_t* next() noexcept;

 private:
  ngx_list_part_t* part_;
  ngx_uint_t index_ = 0;
  std::string_view name_;
};

// Whether the name of a line is this one for whoever reads `_` and `-` alike, as variables and CGI do. REQUIRES: `name`
// is in lower case, with `_`.
[[nodiscard]] bool is_alike(const ngx_table_elt_t& line, std::string_view name) noexcept;

// Takes `line` out of the list and out of headers_in's own pointers, of this request alone: a subrequest has a copy of
// headers_in. Nothing happens when it is not there. RETURNS: false without memory.
bool remove_header(ngx_http_request_t* r, ngx_table_elt_t* line) noexcept;

}  // namespace apikey::nginx
