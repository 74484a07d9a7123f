//! The derive of `librpc::Describe`: use it through the feature `derive` of `librpc-ipc`.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, GenericParam, LitStr, Type, parse_macro_input, parse_quote};

/// Says what a struct or an enum is made of: its name, and the names and types of its fields, which are described, too.
///
/// | attribute | on | |
/// |---|---|---|
/// | `#[describe(name = "geometry/Pose")]` | the type | its name, by default the bare one |
/// | `#[describe(like = String)]` | a field | is described as this type: for types of other crates, as serde writes them |
#[proc_macro_derive(Describe, attributes(describe))]
pub fn describe(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    implementation(input).unwrap_or_else(Error::into_compile_error).into()
}

/// What the attributes of a type, or of a field, say.
#[derive(Default)]
struct Said {
    name: Option<String>,
    like: Option<Type>,
}

fn said(attributes: &[Attribute]) -> Result<Said, Error> {
    let mut said = Said::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("describe")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                said.name = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("like") {
                said.like = Some(meta.value()?.parse()?);
            } else {
                return Err(meta.error("only `name = \"...\"` of a type, and `like = Type` of a field, are known"));
            }
            Ok(())
        })?;
    }
    Ok(said)
}

fn implementation(input: DeriveInput) -> Result<Tokens, Error> {
    let DeriveInput { attrs, ident, mut generics, data, .. } = input;
    let of_type = said(&attrs)?;
    if let Some(like) = of_type.like {
        return Err(Error::new(like.span(), "`like` belongs to a field"));
    }
    let name = of_type.name.unwrap_or_else(|| ident.to_string());
    let shape = match data {
        Data::Struct(of) => {
            let fields = described(&of.fields, true)?;
            quote! {
                let layout = (::core::mem::size_of::<Self>(), ::core::mem::align_of::<Self>());
                let fields = #fields;
                describer.structure(#name, layout, fields)
            }
        }
        Data::Enum(of) => {
            let variants = of.variants.iter().map(|variant| {
                let (name, fields) = (variant.ident.to_string(), described(&variant.fields, false)?);
                Ok(quote!((#name, #fields)))
            });
            let variants = variants.collect::<Result<Vec<_>, Error>>()?;
            quote! {
                let variants = ::std::vec![#(#variants),*];
                describer.enumeration(#name, variants)
            }
        }
        Data::Union(of) => return Err(Error::new(of.union_token.span, "a union cannot be described")),
    };
    for parameter in &mut generics.params {
        if let GenericParam::Type(of) = parameter {
            of.bounds.push(parse_quote!(::librpc::Describe));
        }
    }
    let (of, arguments, conditions) = generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #of ::librpc::Describe for #ident #arguments #conditions {
            fn describe(describer: &mut ::librpc::shape::Describer) -> ::librpc::shape::Shape {
                describer.named::<Self>(#name, |describer| { #shape })
            }
        }
    })
}

/// The fields as a vector. Only those of a struct have offsets.
fn described(fields: &Fields, have_offsets: bool) -> Result<Tokens, Error> {
    let fields = fields.members().zip(fields).map(|(member, field)| {
        let of_field = said(&field.attrs)?;
        if of_field.name.is_some() {
            return Err(Error::new(field.span(), "`name` belongs to a type: rename the field itself"));
        }
        let shown = of_field.like.as_ref().unwrap_or(&field.ty);
        let name = match &field.ident {
            Some(ident) => {
                let ident = ident.to_string();
                let bare = ident.strip_prefix("r#").unwrap_or(&ident);
                quote!(::core::option::Option::Some(#bare))
            }
            None => quote!(::core::option::Option::None),
        };
        let offset = if have_offsets { quote!(::core::mem::offset_of!(Self, #member)) } else { quote!(0) };
        Ok(quote!(describer.field::<#shown>(#name, #offset)))
    });
    let fields = fields.collect::<Result<Vec<_>, Error>>()?;
    Ok(quote!(::std::vec![#(#fields),*]))
}
