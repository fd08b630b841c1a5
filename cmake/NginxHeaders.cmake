# Runs nginx's ./configure once in the build folder, so that ngx_auto_config.h is that of the nginx the module is for.
# Sets NGINX_INCLUDE_DIRS and makes the target nginx_headers.
set(NGINX_OBJS ${CMAKE_BINARY_DIR}/nginx-objs)
set(NGINX_CONFIGURE_ARGS "" CACHE STRING "Arguments for nginx's ./configure; empty: those of the tree's conf_flags, else --with-compat …")

# Written again only when it says something else: then the headers are made again.
file(CONFIGURE OUTPUT ${CMAKE_BINARY_DIR}/nginx-source.txt CONTENT "${NGINX_SRC}\n${NGINX_CONFIGURE_ARGS}\n" @ONLY)

add_custom_command(OUTPUT ${NGINX_OBJS}/ngx_auto_config.h
  COMMAND ${PROJECT_SOURCE_DIR}/cmake/configure-nginx.sh ${NGINX_SRC} ${NGINX_OBJS} "${NGINX_CONFIGURE_ARGS}"
  DEPENDS ${PROJECT_SOURCE_DIR}/cmake/configure-nginx.sh ${CMAKE_BINARY_DIR}/nginx-source.txt
    ${NGINX_SRC}/src/core/nginx.h
  COMMENT "Configuring the nginx headers of ${NGINX_SRC}" VERBATIM)
add_custom_target(nginx_headers DEPENDS ${NGINX_OBJS}/ngx_auto_config.h)

set(NGINX_INCLUDE_DIRS ${NGINX_OBJS})
foreach(dir core event event/modules event/quic os/unix http http/modules http/v2 http/v3)
  if(EXISTS ${NGINX_SRC}/src/${dir})
    list(APPEND NGINX_INCLUDE_DIRS ${NGINX_SRC}/src/${dir})
  endif()
endforeach()
